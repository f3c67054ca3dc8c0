"""What an API answers with when it is not the declared value alone: status, headers, cookies, a whole `Response`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Literal

__all__ = ["Background", "Response", "ResponseOptions", "ServerSentEvent", "is_response_type"]

_log = logging.getLogger("bentotool.service")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SameSite = Literal["lax", "strict", "none"]


def _clean(name: str, value: str) -> tuple[bytes, bytes]:
    """A header as it goes out. A line break would start a header of the caller's own."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a header")
    if _CONTROL.search(value) is not None:
        raise ValueError(f"header {name!r} holds a line break or a control character")
    return name.lower().encode("latin-1"), value.encode("latin-1")


def check_status(status: int) -> None:
    """Raises: ValueError: no status that an answer may have."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"{status!r} is not the status of an answer")


def _cookie(name: str, value: str, attributes: Mapping[str, Any]) -> str:
    """The value of one ``Set-Cookie`` header (RFC 6265)."""
    jar: SimpleCookie = SimpleCookie()
    jar[name] = value
    for key, given in attributes.items():
        if given is not None and given is not False:
            jar[name][key] = given
    return jar.output(header="").strip()


class Background:
    """Calls to make once the answer is sent; in order, synchronous ones in a thread."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def add_task(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have ``func(*args, **kwargs)`` called after the answer. It may be ``async def``."""
        self._calls.append((func, args, kwargs))

    def __bool__(self) -> bool:
        return bool(self._calls)

    async def run(self, in_thread: Callable[[Callable[[], Any]], Any]) -> None:
        """Make the calls; one that fails is logged and does not stop the others. For the runtime."""
        import functools
        import inspect

        for func, args, kwargs in self._calls:
            call = functools.partial(func, *args, **kwargs)
            try:
                if inspect.iscoroutinefunction(func):
                    await call()
                else:
                    await in_thread(call)
            except Exception:
                _log.exception("background task %s failed", getattr(func, "__qualname__", func))


@dataclass
class ResponseOptions:
    """What the answer shall carry beside the method's return value: ``ctx.response``."""

    status_code: int = 200
    headers: MutableMapping[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    _background: Background | None = field(default=None, repr=False)

    def __call__(self, status_code: int | None = None, headers: Mapping[str, str] | None = None) -> ResponseOptions:
        """Set status and headers in one call."""
        if status_code is not None:
            self.status_code = status_code
        self.headers.update(headers or {})
        return self

    @property
    def metadata(self) -> MutableMapping[str, str]:
        """BentoML's other name for `headers`."""
        return self.headers

    @property
    def background(self) -> Background:
        """What to do after the answer: ``ctx.response.background.add_task(func, ...)``."""
        if self._background is None:
            self._background = Background()
        return self._background

    @property
    def later(self) -> Background | None:
        """What `background` was given; None where nothing was."""
        return self._background or None

    def set_cookie(
        self,
        key: str,
        value: str = "",
        max_age: int | None = None,
        expires: str | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: _SameSite | None = "lax",
    ) -> None:
        """Send a cookie.

        Args:
            max_age: seconds.
            expires: a date in the form of RFC 9110.
        """
        attributes = {
            "max-age": max_age, "expires": expires, "path": path, "domain": domain,
            "secure": secure, "httponly": httponly, "samesite": samesite,
        }  # fmt: skip
        self.cookies.append(_cookie(key, value, attributes))

    def delete_cookie(self, key: str, path: str = "/", domain: str | None = None) -> None:
        """Have the client forget a cookie."""
        self.set_cookie(key, max_age=0, expires="Thu, 01 Jan 1970 00:00:00 GMT", path=path, domain=domain)

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers and cookies as they go out.

        Raises:
            ValueError: a name or value that cannot be in a header, or a status that is none.
        """
        check_status(self.status_code)
        found = [_clean(name, str(value)) for name, value in self.headers.items()]
        return found + [_clean("set-cookie", cookie) for cookie in self.cookies]


class Response:
    """A whole answer: an API that returns one decides status, headers and body itself. It is an ASGI application.

    Args:
        content: bytes, a text, or anything that has a JSON form; None for no body.
        status_code: any from 200 to 599.
        headers: of the answer.
        media_type: of the body; by default ``application/json``, or plain text or bytes by the content's type.
    """

    def __init__(
        self,
        content: Any = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        self.content, self.status_code, self.media_type = content, status_code, media_type
        self.headers: dict[str, str] = dict(headers or {})

    def body(self) -> tuple[bytes, str | None]:
        """The bytes to send, and their type."""
        if self.content is None:
            return b"", self.media_type
        if isinstance(self.content, (bytes, bytearray, memoryview)):
            return bytes(self.content), self.media_type or "application/octet-stream"
        if isinstance(self.content, str):
            return self.content.encode(), self.media_type or "text/plain; charset=utf-8"
        import msgspec

        from bentotool.sdk.codecs import to_plain

        return msgspec.json.encode(self.content, enc_hook=to_plain), self.media_type or "application/json"

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Send it."""
        content, media_type = self.body()
        check_status(self.status_code)
        if self.status_code in (204, 304):
            content, media_type = b"", None
        headers = [_clean(name, value) for name, value in self.headers.items()]
        names = {name for name, _ in headers}
        if media_type is not None and b"content-type" not in names:
            headers.append(_clean("content-type", media_type))
        if self.status_code in (204, 304):
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        elif b"content-length" not in names:
            headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a stream that is sent as ``text/event-stream``.

    Args:
        data: a text, or anything that has a JSON form.
        event: the event's name.
        id: what a client that connects again sends as ``Last-Event-ID``.
        retry: milliseconds after which a client connects again.
    """

    data: Any = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def lines(self) -> Iterable[str]:
        """The fields before the data.

        Raises:
            ValueError: a line break in one of them.
        """
        for name, value in (("event", self.event), ("id", self.id)):
            if value is not None:
                if "\n" in value or "\r" in value:
                    raise ValueError(f"{name} of an event holds a line break")
                yield f"{name}: {value}\n"
        if self.retry is not None:
            yield f"retry: {int(self.retry)}\n"


def is_response_type(annotation: Any) -> bool:
    """Whether an annotation is a class whose instances are sent as they are: ours, Starlette's or Litestar's."""
    if not isinstance(annotation, type):
        return False
    return issubclass(annotation, Response) or any(
        cls.__name__ in ("Response", "ASGIResponse") and cls.__module__.partition(".")[0] in ("starlette", "litestar")
        for cls in annotation.__mro__
    )
