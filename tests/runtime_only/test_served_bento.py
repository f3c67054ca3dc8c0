"""A Bento served where only the embedded runtime is installed: no command line, plugin manager or registry client."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CLI_SIDE = (
    "typer",
    "rich",
    "pluggy",
    "oras",
    "sigstore",
    "tomlkit",
    "bentotool.cli",
    "bentotool.oci",
    "bentotool.build",
)

SERVICE = """
import sys

import numpy as np

import bentotool


@bentotool.service
class Doubler:
    model = bentotool.models.BentoModel("factor:latest")

    def __init__(self):
        self.factor = bentotool.toy.load_model(self.model)

    @bentotool.api(batchable=True)
    def scale(self, rows: np.ndarray) -> np.ndarray:
        return rows * self.factor

    @bentotool.api
    def loaded(self) -> list[str]:
        return sorted(sys.modules)

    @bentotool.api
    def tag(self) -> str:
        return self.model.tag
"""
MODEL = {
    "alias": "factor:latest",
    "name": "factor",
    "version": "1",
    "digest": "sha256:" + "0" * 64,
    "path": "models/factor",
    "framework": "toy",
    "safety": "data",
    "main_file": "factor.txt",
    "signature": {},
    "labels": {},
    "metadata": {},
}


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bento")
    home = root / "home" / "bento"
    document = {
        "format": 1,
        "name": "doubler",
        "version": "1",
        "service": "service:Doubler",
        "python": "3.12",
        "labels": {},
        "description": "",
        "runtime": {"version": "0", "digest": ""},
        "models": [MODEL],
        "loaders": {"toy": "loaders/toy.py"},
        "envs": [],
        "middleware": [],
    }
    write(home / "bento.json", json.dumps(document))
    write(home / "app" / "service.py", SERVICE)
    write(home / "loaders" / "toy.py", "def load(path, **options):\n    return float(open(path).read())\n")
    write(root / "models" / "factor" / "factor.txt", "2.5")
    return home


@pytest.fixture(scope="module")
def url(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    port = folder / "port"
    with (folder / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentotool.runtime", str(bento), "--port", "0", "--port-file", str(port)],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 50
        while (
            not (port.exists() and port.read_text().strip()) and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        assert port.exists(), (folder / "log").read_text(encoding="utf-8")
        yield f"http://127.0.0.1:{port.read_text().strip()}"
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0 or sys.platform == "win32"


def ask(url: str, path: str, body: object) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        text = response.read().decode()
        return json.loads(text) if "json" in response.headers["Content-Type"] else text


def test_it_predicts_with_its_own_loader_and_model(url: str) -> None:
    assert ask(url, "/scale", {"rows": [[1.0, 2.0]]}) == [[2.5, 5.0]]
    assert ask(url, "/tag", {}) == "factor:1"


def test_nothing_of_the_command_line_is_loaded(url: str) -> None:
    loaded = ask(url, "/loaded", {})
    found = [name for name in loaded if name.startswith(CLI_SIDE)]
    assert found == []
    assert "bentotool.runtime" in loaded


def test_the_command_line_is_not_even_installed() -> None:
    """Guards the other two: in an environment with everything they would prove less."""
    if importlib.util.find_spec("bentotool.cli") is not None:
        pytest.skip("the whole bentotool is installed here; tox -e runtime has the runtime alone")
    assert importlib.util.find_spec("typer") is None
    assert importlib.util.find_spec("pluggy") is None or "pytest" in sys.modules  # pytest itself brings pluggy
    assert importlib.util.find_spec("oras") is None
