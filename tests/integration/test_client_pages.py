"""``docs/tasks.md`` and ``docs/clients.md``: their programs are run as they stand there, against their services."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bentotool

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDRESS = "http://127.0.0.1:3000"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["tasks", "clients"])
def test_the_programs_of_the_page_run(
    name: str, pytestconfig: pytest.Config, tmp_path: Path, require_package: Callable[[str], None]
) -> None:
    for package in ("httpx", "numpy", "websockets"):
        require_package(package)
    page = (pytestconfig.rootpath / "docs" / f"{name}.md").read_text(encoding="utf-8")
    service, *programs = BLOCK.findall(page)
    assert service.startswith("# service.py\n")
    assert len(programs) >= 2
    (tmp_path / "service.py").write_text(service, encoding="utf-8")
    environment = {**os.environ, "BENTOTOOL_TASKS": str(tmp_path / "tasks"), "PYTHONDONTWRITEBYTECODE": "1"}
    with bentotool.serve(tmp_path, environment=environment, grace=1.0) as server:
        for program in programs:
            generate = re.search(r"^# after: bentotool (client gen .*)$", program, re.MULTILINE)
            if generate:
                words = generate[1].replace(ADDRESS, server.url).split()
                run([sys.executable, "-m", "bentotool", *words], tmp_path, environment)
                offline = [sys.executable, "-m", "bentotool", "client", "gen", ".", "-o", "from_folder.py"]
                run(offline, tmp_path, environment)
                assert (tmp_path / "from_folder.py").read_bytes() == (tmp_path / words[-1]).read_bytes()
            source = program.replace(ADDRESS, server.url)
            run([sys.executable, "-W", "error", "-c", source], tmp_path, environment)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"{command[-1]}\n{done.stderr}"
