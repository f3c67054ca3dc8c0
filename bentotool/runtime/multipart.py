"""``multipart/form-data`` (https://www.rfc-editor.org/rfc/rfc7578), parsed as it comes, with a limit on everything.

The parser is the `multipart` package, which Litestar brings along. What it does not limit by itself is limited here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bentotool.runtime.uploads import Sink
from bentotool.sdk.exceptions import InvalidArgument, PayloadTooLarge
from bentotool.sdk.files import RequestFolder, Upload

if TYPE_CHECKING:
    from multipart import MultipartSegment, PushMultipartParser  # type: ignore[import-untyped]

__all__ = ["FormField", "read_form"]

MAX_PARTS = 1000
MAX_NAME = 1024
MAX_TEXT = 64 * 1024 * 1024
"""Bytes of all parts together that are no files: these are held in memory."""
_MAX_HEADERS = 8
_MAX_HEADER = 4096
_MAX_BOUNDARY = 70  # RFC 2046
_MAX_PREAMBLE = 64 * 1024
_PLAIN_ENCODINGS = ("", "binary", "8bit", "7bit")


@dataclass(frozen=True)
class FormField:
    """One part: a file, or a text."""

    name: str
    value: Upload | str


def _new_parser(boundary: str) -> PushMultipartParser:
    from multipart import PushMultipartParser

    if not 0 < len(boundary) <= _MAX_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise InvalidArgument(f"the form's boundary is not one of 1 to {_MAX_BOUNDARY} characters")
    return PushMultipartParser(
        boundary, max_header_size=_MAX_HEADER, max_header_count=_MAX_HEADERS, max_segment_count=MAX_PARTS
    )


def _check(segment: MultipartSegment) -> str:
    """The name of a part that is read here.

    Raises:
        InvalidArgument: it has no name, one too long, or its content is wrapped in something else.
    """
    name = segment.name or ""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidArgument(f"a part of the form has no name of 1 to {MAX_NAME} printable characters")
    encoding = (segment.header("Content-Transfer-Encoding") or "").strip().lower()
    if encoding not in _PLAIN_ENCODINGS:
        raise InvalidArgument(f"$.{name}: content transfer encoding {encoding[:40]!r} is not read here")
    if (segment.content_type or "").startswith("multipart/"):
        raise InvalidArgument(f"$.{name}: a form inside a form is not read here")
    return name


class _Form:
    """The fields of one form, while they come."""

    def __init__(self, folder: RequestFolder) -> None:
        self.fields: list[FormField] = []
        self._folder = folder
        self._text_size = 0
        self._name = ""
        self._sink: Sink | None = None
        self._text: list[bytes] = []
        self._empty = False

    def begin(self, segment: MultipartSegment) -> None:
        self._name = _check(segment)
        declared = segment.content_type
        # a browser sends a field of files in which none was chosen as a part with an empty file name
        self._empty = segment.filename == ""
        is_file = segment.filename is not None or (declared not in (None, "text/plain", "application/json"))
        if is_file:
            self._sink = Sink(self._folder, (segment.filename or None), declared)
        else:
            self._text = []

    async def add(self, piece: bytes) -> None:
        if self._sink is not None:
            await self._sink.write(piece)
            return
        self._text_size += len(piece)
        if self._text_size > MAX_TEXT:
            raise PayloadTooLarge(f"the parts of the form that are no files have more than {MAX_TEXT} bytes")
        self._text.append(piece)

    async def end(self) -> None:
        if self._sink is None:
            try:
                text = b"".join(self._text).decode()
            except UnicodeDecodeError:
                raise InvalidArgument(f"$.{self._name}: expected text in UTF-8, or a file with a name") from None
            self.fields.append(FormField(self._name, text))
            return
        sink, self._sink = self._sink, None
        if not (self._empty and sink.size == 0):
            self.fields.append(FormField(self._name, await sink.finish()))

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()


async def read_form(body: AsyncIterator[bytes], boundary: str | None, folder: RequestFolder) -> list[FormField]:
    """The fields of a form, in the order in which they came.

    Args:
        body: the body as it comes.
        boundary: of its content type.
        folder: where files are put.

    Raises:
        InvalidArgument: no form, a broken one, or one that ends before its end.
        PayloadTooLarge: more parts, longer headers or more text than are taken.
    """
    from multipart import MultipartError, MultipartSegment, ParserLimitReached

    parser = _new_parser(boundary or "")
    form, read, begun = _Form(folder), 0, False
    try:
        async for piece in body:
            read += len(piece)
            for event in parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    begun = True
                    form.begin(event)
                elif event is None:
                    await form.end()
                else:
                    await form.add(event)
            if not begun and read > _MAX_PREAMBLE:
                raise InvalidArgument("the form does not begin with its boundary")
        parser.close()
    except ParserLimitReached as error:
        raise PayloadTooLarge(f"the form has more than is taken: {str(error).lower()}") from None
    except MultipartError as error:
        raise InvalidArgument(f"the form cannot be read: {str(error).lower()}") from None
    finally:
        form.close()
    return form.fields
