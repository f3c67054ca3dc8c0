"""``docs/io.md``: its service is served, and its calls are made, as they stand there."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import bentotool

PAGE = Path(__file__).parents[3] / "docs/io.md"


@pytest.fixture
def url(tmp_path):
    source = PAGE.read_text("utf-8")
    (code,) = [
        block for block in re.findall(r"^```python\n(.*?)^```$", source, re.M | re.S) if "@bentotool.service" in block
    ]
    (tmp_path / "service.py").write_text(code)
    port = tmp_path / "port"
    command = [sys.executable, "-m", "bentotool.runtime", ".", "--port", "0", "--port-file", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ), stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 50
        while not (port.exists() and port.read_text()):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        server.terminate()
        server.wait(30)


def test_the_page_of_types_is_true(url):
    text = re.sub(r"^```.*$", "", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    with bentotool.SyncHTTPClient(url) as client, httpx.Client(base_url=url) as http:
        test = doctest.DocTestParser().get_doctest(text, {"client": client, "http": http}, "io.md", str(PAGE), 0)
        found: list[str] = []
        result = doctest.DocTestRunner(verbose=False).run(test, out=found.append)
    assert result.attempted > 15
    assert not result.failed, "".join(found)
