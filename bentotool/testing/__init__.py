"""For tests: a client for services (`TestClient`), and contract tests for plugins, one line each in a plugin's tests.

::

    from bentotool.testing import check_framework, check_plugin, check_source

    def test_plugin():
        check_plugin("text")

    def test_framework(tmp_path):
        check_framework("text", [sample], scratch=tmp_path)

    def test_source(tmp_path):
        check_source("greeting", "greeting://hello", scratch=tmp_path)

    def test_served():
        check_served("net:1", {"x": numpy.zeros((2, 4))})

    def test_task_store():
        check_task_store(lambda: open_store("memory://tasks", "Service"))
"""

from __future__ import annotations

from bentotool.testing.client import TestClient
from bentotool.testing.contract import ContractError, check_framework, check_plugin, source_files
from bentotool.testing.served import check_served
from bentotool.testing.sources import check_source
from bentotool.testing.taskstores import check_task_store

__all__ = [
    "ContractError",
    "TestClient",
    "check_framework",
    "check_plugin",
    "check_served",
    "check_source",
    "check_task_store",
    "source_files",
]
