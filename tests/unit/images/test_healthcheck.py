"""The health check of an image asks where its service answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.images.plan import _asked
from bentotool.runtime.healthcheck import main


class Below(BaseHTTPRequestHandler):
    """Ready below a prefix."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/readyz" else 404)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Below) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_address[1]))
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_path_that_is_asked_for(port: int) -> None:
    assert main("/v1/readyz") == 0
    assert main() == 1


@pytest.mark.parametrize(
    ("services", "asked"),
    [
        ([{"target": "service:A", "probes": {"readyz": "/v1/readyz"}}], ("/v1/readyz",)),
        ([{"target": "service:A", "probes": {"readyz": "/readyz"}}], ()),
        ([{"target": "service:B", "probes": {"readyz": "/v1/readyz"}}], ()),
        ([{"target": "service:A", "probes": {"readyz": "/v1/$(readyz)"}}], ()),
        ([{"target": "service:A"}, "nonsense"], ()),
        ([], ()),
    ],
)
def test_what_a_bento_says_of_it(services: list[Any], asked: tuple[str, ...]) -> None:
    bento: Any = SimpleNamespace(service="service:A", config={"services": services})
    assert _asked(bento) == asked
