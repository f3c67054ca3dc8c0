"""Files on the wire: what a caller sends is kept in a folder of the request, what a service returns is sent as it is.

A caller's file comes as a part of ``multipart/form-data``, as the whole body, or inside JSON as a ``data:`` URL
(https://www.rfc-editor.org/rfc/rfc2397). Any other text is refused: it is never a path of the server, and never an
address that is fetched. The caller's name of a file is kept for information, and no path is made of it.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from bentotool.sdk.codecs import Codec, Describe
from bentotool.sdk.validators import ContentType
from bentotool.sdk.wording import kind_of

__all__ = ["FOLDER", "NotFetched", "Rendered", "RequestFolder", "Upload", "data_url", "make", "plain", "read_data_url"]

BINARY = "application/octet-stream"
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
_DATA = re.compile(r"data:([^,;]*)((?:;[^,;]*)*?)(;base64)?,", re.IGNORECASE)
_MAX_NESTED = 64 * 1024 * 1024


class NotFetched(ValueError):
    """An address stands where a file belongs."""


class RequestFolder:
    """The temporary folder of one request, made when it is needed.

    Attributes:
        inference: what an Open Inference Protocol request asks of its answer.
    """

    def __init__(self) -> None:
        self.inference: Any = None
        self._path: Path | None = None
        self._count = 0

    @property
    def path(self) -> Path:
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="bentotool-request-"))
        return self._path

    def new(self, name: str | None, content_type: str | None) -> Path:
        """A path for a new file. Of the caller's name only a harmless ending is kept, for those who go by it."""
        self._count += 1
        match = _SUFFIX.fullmatch(PurePath(name).suffix) if name and "\0" not in name else None
        suffix = match.group() if match else (mimetypes.guess_extension(content_type or "") or "")
        return self.path / f"upload-{self._count}{suffix}"

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None


FOLDER: ContextVar[RequestFolder] = ContextVar("bentotool_request_folder")
"""The folder of the request that is being read."""


@dataclass
class Upload:
    """One file of a request.

    Attributes:
        folder: of the request.
        name: as the caller calls it; never part of a path.
        content_type: as the caller says.
        data: its bytes, where they are few; else None.
        stored: where it lies on disk; None until somebody asks for a path.
    """

    folder: RequestFolder
    name: str | None = None
    content_type: str | None = None
    data: bytes | None = None
    stored: Path | None = field(default=None)

    def read(self) -> bytes:
        """All of it."""
        if self.data is not None:
            return self.data
        return self.stored.read_bytes() if self.stored else b""

    def path(self) -> Path:
        """The file on disk."""
        if self.stored is None:
            self.stored = self.folder.new(self.name, self.content_type)
            self.stored.write_bytes(self.data or b"")
        return self.stored


@dataclass(frozen=True)
class Rendered:
    """An answer that is not JSON.

    Attributes:
        content: its bytes in pieces, or the file that is sent.
        content_type: of it.
        headers: further ones.
    """

    content: list[bytes | memoryview] | Path
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


def read_data_url(text: str) -> Upload:
    """A file that stands in JSON.

    Raises:
        NotFetched: it is the address of one.
        ValueError: the text is no ``data:`` URL.
    """
    found = _DATA.match(text)
    if found is None:
        if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*://", text):
            raise NotFetched("an address is not fetched: send the file itself, as multipart/form-data or a data: URL")
        raise ValueError("expected a file: send it as multipart/form-data, or as a data: URL")
    content = text[found.end() :]
    if found.group(3):
        try:
            data = base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise ValueError(f"the data: URL is not base64: {error}") from None
    else:
        data = unquote_to_bytes(content)
    folder = FOLDER.get(None)
    return Upload(folder or RequestFolder(), None, found.group(1).lower() or "text/plain", data)


def data_url(data: bytes, content_type: str) -> str:
    """A file as text, for JSON."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def check_content_type(content_type: str | None, pattern: str | None) -> None:
    """Raises ValueError where a file says of itself to be of another type than declared, as ``image/*``."""
    if pattern and content_type and not fnmatchcase(content_type.partition(";")[0].strip().lower(), pattern.lower()):
        raise ValueError(f"expected a file of type {pattern}, got {content_type}")


def type_of(path: PurePath) -> str:
    """The media type of a file, by its name."""
    return mimetypes.guess_type(path.name)[0] or BINARY


def plain(value: Any) -> Any:
    """A file inside an answer, as a ``data:`` URL."""
    if isinstance(value, PurePath):
        path = Path(value)
        try:
            if path.stat().st_size > _MAX_NESTED:
                raise ValueError(f"{path.name} is too large to stand inside JSON: return it alone")
            return data_url(path.read_bytes(), type_of(path))
        except OSError as error:
            raise ValueError(f"the file {path.name} cannot be read: {error.strerror}") from error
    raise TypeError(f"{kind_of(value)} cannot be sent as JSON")


def _load_path(pattern: str | None) -> Any:
    def load(value: Any) -> Path:
        if isinstance(value, PurePath):  # of the service's own: no input is one
            return Path(value)
        if isinstance(value, str):
            value = read_data_url(value)
        if not isinstance(value, Upload):
            raise ValueError("expected a file: send it as multipart/form-data")
        check_content_type(value.content_type, pattern)
        return value.path()

    return load


def disposition(name: str, inline: bool) -> str:
    """A ``Content-Disposition`` (https://www.rfc-editor.org/rfc/rfc6266), with the name in both of its forms."""
    kind = "inline" if inline else "attachment"
    ascii_name = re.sub(r'[^ -~]|["\\%]', "_", name)
    extended = f"; filename*=UTF-8''{quote(name, safe='')}" if ascii_name != name else ""
    return f'{kind}; filename="{ascii_name}"{extended}'


def _render_path(media: str | None) -> Any:
    def render(value: Any) -> Rendered | None:
        if not isinstance(value, PurePath):
            return None
        kind = media if media and "*" not in media else type_of(value)
        return Rendered(Path(value), kind, {"content-disposition": disposition(value.name, kind.startswith("image/"))})

    return render


def describe_file(kind: str, content_type: str | None, extra: Mapping[str, Any]) -> Describe:
    """The schema of a file: BentoML's, or that of OpenAPI 3.1."""

    def describe(_template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        if tensors:
            form = content_type.partition("/")[0] if content_type else kind
            schema: dict[str, Any] = {"type": "file", "format": form, **extra}
            if content_type:
                schema["content_type"] = content_type
            return schema, {}
        media = content_type or ("image/*" if kind == "image" else BINARY)
        return {"type": "string", "contentMediaType": media}, {}

    return describe


def _load_bytes(pattern: str | None) -> Any:
    def load(value: Any) -> Any:
        if isinstance(value, Upload):
            check_content_type(value.content_type, pattern)
            return value.read()
        if isinstance(value, str):
            if value[:5].lower() == "data:":
                return read_data_url(value).read()
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"expected bytes as base64: {error}") from None
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise ValueError(f"expected bytes, got {type(value).__name__}")

    return load


def _describe_bytes(_template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    if tensors:
        return {"type": "string", "format": "binary"}, {}
    return {"type": "string", "contentEncoding": "base64"}, {}


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec | None:
    """The codec of ``pathlib.Path`` and of ``bytes``."""
    content_type = next((item.content_type for item in metadata if isinstance(item, ContentType)), None)
    if tp in (bytes, bytearray):

        def render(value: Any) -> Rendered | None:
            if not isinstance(value, (bytes, bytearray, memoryview)):
                return None
            return Rendered([bytes(value)], content_type or BINARY)

        load = _load_bytes(content_type)
        return Codec(
            Any,
            _describe_bytes,
            load=load,
            dump=load,
            render=render,
            media_type=content_type or BINARY,
            file=True,
            files=True,
            foreign=True,
        )
    if not (isinstance(tp, type) and issubclass(tp, PurePath)):
        return None
    return Codec(
        Any,
        describe_file("binary", content_type, {}),
        load=_load_path(content_type),
        dump=plain,
        render=_render_path(content_type),
        media_type=content_type if content_type and "*" not in content_type else BINARY,
        file=True,
        files=True,
        foreign=True,
    )
