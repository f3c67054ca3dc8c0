"""quickstart's own decisions; the whole path is told in tests/e2e and tests/wheels."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bentotool.cli.commands.quickstart import QUESTION, _ask
from bentotool.errors import RemoteError
from bentotool.scaffold import available_templates, create_project, is_untouched


class _Answering(BaseHTTPRequestHandler):
    status, body, asked = 200, b"[0, 2]", b""

    def do_POST(self) -> None:
        type(self).asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def answering() -> Iterator[tuple[type[_Answering], str]]:
    class Handler(_Answering):
        pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Handler, f"http://127.0.0.1:{server.server_port}/classify"
        server.shutdown()
        thread.join(10)


def test_the_question_is_asked_and_the_answer_read(answering, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, url = answering
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy of the person's must not be asked
    assert _ask(url) == [0, 2]
    assert json.loads(handler.asked) == QUESTION


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b'{"error": "boom"}', "boom"),
        (200, b"not json", "did not answer"),
        (200, b'{"x": 1}', "unexpected answer"),
        (200, b"[7]", "unexpected answer"),
    ],
)
def test_another_answer_is_a_clear_failure(answering, status: int, body: bytes, said: str) -> None:
    handler, url = answering
    handler.status, handler.body = status, body
    with pytest.raises(RemoteError, match=said):
        _ask(url)


def test_without_the_plugin_nothing_is_made(cli, tmp_path: Path, store: Path) -> None:
    outcome = cli("quickstart", str(tmp_path / "p"), "--disable-plugin", "onnx")
    assert outcome.status == 1
    assert "hint: pip install bentotool-onnx" in outcome.err
    assert not (tmp_path / "p").exists()
    assert not store.exists()


def test_an_earlier_project_is_taken_up_only_while_untouched(tmp_path: Path) -> None:
    template = available_templates()["quickstart"]
    assert not is_untouched(template, tmp_path / "p")
    create_project(template, tmp_path / "p")
    (tmp_path / "p" / "bento.lock").write_text("made by build")
    assert is_untouched(template, tmp_path / "p")
    (tmp_path / "p" / "service.py").write_text("mine")
    assert not is_untouched(template, tmp_path / "p")


def test_a_changed_project_is_left_alone(cli, tmp_path: Path, require_package) -> None:
    require_package("bentotool_onnx")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "service.py").write_text("mine")
    outcome = cli("quickstart", str(tmp_path / "p"))
    assert outcome.status == 1
    assert "overwrite" in outcome.err
    assert (tmp_path / "p" / "service.py").read_text() == "mine"
