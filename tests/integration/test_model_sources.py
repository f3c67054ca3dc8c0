"""``model import`` from addresses and folders: what it shows, what it says it left out, what the model is called."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main

MODEL = Path(__file__).parents[2] / "templates" / "quickstart" / "iris.onnx"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a server of the quickstart's folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(MODEL.parent))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], require_package: Callable[[str], None]
) -> Callable[..., tuple[int, str, str]]:
    require_package("bentotool_onnx")

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(each) for each in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def test_a_download_is_shown_with_its_total(run: Callable[..., Any], web: str) -> None:
    status, _, err = run("model", "import", f"{web}/iris.onnx?token=abc", "--json")
    assert status == 0, err
    (fetched,) = [line for line in _progress(err) if line["label"].startswith("fetch")]
    assert fetched["total"] == fetched["done"] == MODEL.stat().st_size
    assert "abc" not in err  # what may be a secret is not shown


def _progress(err: str) -> list[dict[str, Any]]:
    return [json.loads(line)["progress"] for line in err.splitlines() if "progress" in line]


def test_the_same_bytes_are_the_same_model_wherever_they_come_from(run: Callable[..., Any], web: str) -> None:
    def imported(source: object, *more: str) -> dict[str, Any]:
        status, out, err = run("model", "import", source, "--json", *more)
        assert status == 0, err
        return dict(json.loads(out))

    first = imported(f"{web}/iris.onnx")
    assert first["metadata"]["source"] == f"{web}/iris.onnx"
    assert imported(MODEL) == first  # it is there already, and keeps the note of its origin
    assert imported(f"{web}/../iris.onnx") == first
    other = imported(MODEL, "--metadata", "accuracy=1")
    assert other["version"] != first["version"]
    replaced = imported(MODEL, "--replace")
    assert (replaced["version"], "source" in replaced["metadata"]) == (first["version"], False)
    imported(MODEL, "--version", "1")
    status, _, err = run("model", "import", MODEL, "--version", "1", "--label", "a=b", "--json")
    assert (status, json.loads(err.splitlines()[-1])["error"]["code"]) == (1, "conflict")


def test_what_is_left_out_of_a_folder_is_named(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "net"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / ".env").write_text("PASSWORD=x")
    (folder / "net.onnx").write_bytes(MODEL.read_bytes())
    status, _, err = run("model", "import", folder)
    assert (status, "left out" in err, ".env, .git/" in err) == (0, True, True)
    _, out, err = run("model", "import", folder, "--json")
    assert json.loads(out)["left_out"] == [".env", ".git/"]
    assert any(".env" in json.loads(line).get("note", "") for line in err.splitlines())
    assert "left out" not in run("model", "import", MODEL)[2]


def test_the_help_names_the_sources(run: Callable[..., Any], require_package: Callable[[str], None]) -> None:
    require_package("bentotool_huggingface")
    status, out, _ = run("model", "import", "--help")
    assert status == 0
    for form in ("PATH", "https://HOST/FILE", "oci://HOST/REPOSITORY[:TAG]", "hf://ORG/REPO[@REVISION]"):
        assert form in out.partition("Sources")[2]


def test_a_checksum_that_is_none_is_wrong_usage(run: Callable[..., Any]) -> None:
    status, _, err = run("model", "import", MODEL, "--checksum", "abc")
    assert (status, "sha256:" in err) == (2, True)


def test_facts_are_shown_as_they_are_given(run: Callable[..., Any]) -> None:
    run("model", "import", MODEL, "--metadata", 'scores={"a": [1, true]}')
    assert 'scores={"a": [1, true]}' in run("model", "show", "iris")[1]


@pytest.mark.parametrize(
    "words",
    [("--name", "a b"), ("--version", "x y"), ("--framework", "none"), ("--label", "x"), ("--metadata", "x\ny=1")],
)
def test_what_cannot_be_is_refused_before_anything_is_fetched(run: Callable[..., Any], words: tuple[str, str]) -> None:
    with socket.socket() as taken:  # nothing listens there: who asks fails otherwise
        taken.bind(("127.0.0.1", 0))
        status, _, err = run("model", "import", f"http://127.0.0.1:{taken.getsockname()[1]}/net.onnx", *words)
    assert status == 2, err
