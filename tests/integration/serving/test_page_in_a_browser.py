"""The page of a service in a real browser: it shows the APIs, calls one, and asks nobody else for anything."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the browser is spoken to over inherited pipes")

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--disable-background-networking")
SERVICE = """
import bentotool
from pathlib import Path

@bentotool.service(path_prefix="%s")
class Calculator:
    '''Adds <b>up</b>.'''

    @bentotool.api
    def double(self, x: int) -> dict[str, int]:
        '''Twice <script>document.title = "taken over"</script> as much.'''
        return {"y": 2 * x}

    @bentotool.api(method="GET", route="/items/{id}")
    def item(self, id: int) -> int:
        return id
"""
# React keeps the value of a field itself, so it is told as the browser would tell it
FILL = """
(text) => {
  const field = document.querySelector('.opblock-body textarea');
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(field, text);
  field.dispatchEvent(new Event('input', {bubbles: true}));
}
"""


class Browser:
    """A browser without a screen, over the Chrome DevTools protocol: JSON messages, each ended by a zero byte.

    Attributes:
        asked: every address that a page has asked for.
        complaints: errors of scripts, and what the page's security policy has stopped.
    """

    def __init__(self, program: str, folder: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()  # what we read, what the browser reads
        argv = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        self.pid = os.posix_spawn(program, argv, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, log, 2), (os.POSIX_SPAWN_DUP2, theirs[0], 3), (os.POSIX_SPAWN_DUP2, ours[1], 4),
        ], setpgroup=0)  # fmt: skip
        for end in (theirs[0], ours[1], log):
            os.close(end)
        self._read, self._write = ours[0], theirs[1]
        self._rest, self._number = b"", 0
        self.asked: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        """Have the browser do something; its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 45
        while True:
            document = self._message(end)
            if document.get("id") == self._number:
                assert "error" not in document, document
                return document["result"]
            self._note(document.get("method"), document.get("params", {}))

    def _message(self, end: float) -> Any:
        while b"\0" not in self._rest:
            readable, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert readable, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _note(self, kind: str | None, told: dict[str, Any]) -> None:
        if kind == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(told["entry"]["text"])

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """The value of an expression, once it is one."""
        end = time.monotonic() + 45
        while not (found := self.run(script)):
            assert time.monotonic() < end, (script, self.complaints, self.run("document.body.innerText"))
            time.sleep(0.1)
        return found

    def click(self, selector: str) -> None:
        self.until(f"!!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).click()")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def browser(require_tool: Callable[[str], str], tmp_path: Path) -> Iterator[Browser]:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    profile = tmp_path / "profile"
    profile.mkdir()
    made = Browser(program or require_tool(NAMES[0]), profile)
    yield made
    made.close()


@contextlib.contextmanager
def proxy(port: int, prefix: str) -> Iterator[str]:
    """A server that answers below a path of its own, and takes it off before it asks another."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix + "/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "origin", "accept-encoding")}
            behind = HTTPConnection("127.0.0.1", port, timeout=30)
            behind.request(self.command, self.path[len(prefix) :], body, {**headers, "X-Forwarded-Prefix": prefix})
            answer = behind.getresponse()
            content = answer.read()
            behind.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("own", "outside"), [("", ""), ("/v1", "/a/b")])
def test_the_page_calls_an_api(serving: Any, browser: Browser, tmp_path: Path, own: str, outside: str) -> None:
    with serving(tmp_path / "project", SERVICE % own) as server, contextlib.ExitStack() as stack:
        url = stack.enter_context(proxy(server.port, outside)) if outside else server.url
        browser.call("Page.navigate", {"url": url + (own or "/")})
        paths = "[...document.querySelectorAll('.opblock-summary-path')].map(e => e.innerText.replace(/\\u200b/g, ''))"
        shown = browser.until(f"(found => found.length > 3 && found)({paths})")
        assert {f"{own}/double", f"{own}/items/{{id}}", f"{own}/readyz"} <= set(shown)

        block = "[id$=Calculator__double]"
        browser.click(f"{block} .opblock-summary-control")
        browser.click(f"{block} .try-out__btn")
        browser.until("!!document.querySelector('.opblock-body textarea')")
        browser.run(f"({FILL})('{{\"x\": 21}}')")
        browser.click(f"{block} .execute")
        browser.until("!!document.querySelector('.live-responses-table')")
        assert (
            browser.until("document.querySelector('.live-responses-table tbody .response-col_status').innerText")
            == "200"
        )
        said = browser.run("document.querySelector('.live-responses-table tbody .response-col_description').innerText")
        assert '"y": 42' in said

        assert browser.run("document.title") == "Calculator"
        assert browser.complaints == []
        page = urlsplit(url)
        sent = [address for address in browser.asked if not address.startswith(("data:", "about:"))]
        others = [address for address in sent if urlsplit(address).netloc != page.netloc]
        assert others == [], "nothing is asked of another host"
        assert any(address == f"{url}{own}/double" for address in browser.asked), browser.asked
