"""What an API method may ask for beside its input: the parameter named ``ctx`` or ``context``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bentotool.sdk.taskrun import TaskRun, current_task

__all__ = ["Context", "Headers", "Request", "Response"]


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
    """The HTTP request behind a call, read lazily from the ASGI scope."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def headers(self) -> Headers:
        return Headers(self.scope["headers"])

    @property
    def query_params(self) -> dict[str, str]:
        return dict(parse_qsl(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))

    @property
    def client(self) -> tuple[str, int] | None:
        found = self.scope.get("client")
        return (str(found[0]), int(found[1])) if found else None


@dataclass
class Response:
    """What the answer shall carry; the body is the method's return value."""

    status_code: int = 200
    headers: MutableMapping[str, str] = field(default_factory=dict)

    def __call__(self, status_code: int | None = None, headers: Mapping[str, str] | None = None) -> Response:
        """Set status and headers in one call."""
        if status_code is not None:
            self.status_code = status_code
        self.headers.update(headers or {})
        return self


class Context:
    """One request's surroundings.

    Attributes:
        request: method, headers, query parameters.
        response: status and headers of the answer.
        state: one dict per worker process, shared by its requests.
    """

    def __init__(self, request: Request, state: dict[str, Any]) -> None:
        self.request = request
        self.response = Response()
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
