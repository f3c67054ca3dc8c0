"""What an API method may ask for beside its input: the parameter named ``ctx`` or ``context``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bentotool.sdk.response import ResponseOptions
from bentotool.sdk.taskrun import TaskRun, current_task

__all__ = ["Context", "Headers", "Request"]


class Headers(Mapping[str, str]):
    """Request headers, looked up without regard to case."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._values = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Request:
    """The HTTP request behind a call, read lazily from the ASGI scope.

    Args:
        scope: ASGI's.
        body: as it was read; empty where a stream was read instead.
        path_params: what the route's ``{names}`` stand for.
    """

    def __init__(
        self, scope: Mapping[str, Any], body: bytes = b"", path_params: Mapping[str, str] | None = None
    ) -> None:
        self.scope = scope
        self.path_params: Mapping[str, str] = path_params or {}
        self._body = body

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def url(self) -> str:
        """The address that was asked for, as far as the request says."""
        query = self.scope.get("query_string", b"").decode("latin-1")
        host = self.headers.get("host", "")
        return f"{self.scope.get('scheme', 'http')}://{host}{self.path}{'?' + query if query else ''}"

    @property
    def headers(self) -> Headers:
        return Headers(self.scope["headers"])

    @property
    def query_params(self) -> dict[str, str]:
        return dict(parse_qsl(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the request; a part that is none is left out."""
        found: dict[str, str] = {}
        for part in self.headers.get("cookie", "").split(";"):
            name, is_one, value = part.strip().partition("=")
            if is_one and name:
                found[name] = value.removeprefix('"').removesuffix('"') if value.startswith('"') else value
        return found

    @property
    def state(self) -> Any:
        """What middleware left for the request, as ``scope["state"]``."""
        return self.scope.get("state", {})

    @property
    def client(self) -> tuple[str, int] | None:
        found = self.scope.get("client")
        return (str(found[0]), int(found[1])) if found else None

    async def body(self) -> bytes:
        """The body as it was sent. Awaitable, as in BentoML."""
        return self._body

    async def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        import json

        return json.loads(self._body)


class Context:
    """One request's surroundings.

    Attributes:
        request: method, headers, query parameters.
        response: status, headers and cookies of the answer, and what to do after it.
        state: one dict per worker process, shared by its requests.
    """

    def __init__(self, request: Request, state: dict[str, Any]) -> None:
        self.request = request
        self.response = ResponseOptions()
        self.state = state
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def task(self) -> TaskRun | None:
        """The run of a submitted task that this call is; None in any other call."""
        return current_task()

    @property
    def temp_dir(self) -> Path:
        """A folder of this request's own; removed when the answer is sent."""
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="bentotool-request-")
        return Path(self._temporary.name)

    def close(self) -> None:
        """Remove the temporary folder, if one was asked for."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
