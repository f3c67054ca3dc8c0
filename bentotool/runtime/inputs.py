"""The bodies of an API that are not JSON: forms, single files, tensors."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from bentotool.runtime.body import Receive, check_headers, check_size, media_type, pieces, read_binary, read_body
from bentotool.runtime.multipart import read_form
from bentotool.runtime.uploads import read_upload
from bentotool.sdk.binary import arguments_tree, inference_tree
from bentotool.sdk.cors import CorsOptions
from bentotool.sdk.exceptions import InvalidArgument, ServiceError, UnprocessableEntity
from bentotool.sdk.files import FOLDER, RequestFolder, Upload
from bentotool.sdk.forms import Form
from bentotool.sdk.inference_protocol import LENGTH_HEADER, InferenceRequest, read_inference
from bentotool.sdk.npy import MEDIA_TYPE as NPY
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.tensors import MEDIA_TYPE as TENSORS

__all__ = ["Inputs"]

Headers = Mapping[bytes, bytes]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_JSON = "application/json"
_FORM = "multipart/form-data"
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_LARGE = 128 * 1024
_ADDRESS = (b"http://", b"https://", b"ftp://", b"file://", b"s3://")


class ForeignPage(ServiceError):
    """A page of another site sends to a server on this machine what browsers let it send unasked (403)."""

    code = "foreign_page"
    http_status = 403


def refuse_foreign_page(headers: Headers, cors: CorsOptions | None) -> None:
    """JSON a browser sends to another site only when that site allows it; a form, a file, or no body at all, at once.

    A server that is reached by a loopback name answers those of its own pages alone, and of those that CORS allows.

    Raises:
        ForeignPage.
    """
    raw, host = headers.get(b"origin"), headers.get(b"host", b"").decode("latin-1")
    if raw is None or not _LOOPBACK.fullmatch(host):
        return
    origin = raw.decode("latin-1")
    if cors is not None and cors.allows(origin):
        return
    if urlsplit(origin).netloc.lower() != host.lower():
        raise ForeignPage("a page of another site may not send this", hint="set http.cors.access_control_allow_origins")


class Inputs:
    """Reads the bodies of one API that are not JSON.

    Args:
        spec: the API.
        limit: bytes of a body at most.
        cors: which pages of other sites may send something.

    Attributes:
        files: there are files among the arguments, so a request has a folder.
        always: even a body that calls itself JSON may be something else.
    """

    def __init__(self, spec: MethodSpec, limit: int, cors: CorsOptions | None = None) -> None:
        self._spec, self._limit, self._cors = spec, limit, cors
        self.files = any(parameter.codec.files for parameter in spec.parameters)
        self._form = Form(spec) if self.files else None
        self._alone = _sole_file(spec)
        # a file's own type may be JSON; BentoML's client calls all JSON whose type it cannot guess
        self.always = self._alone is not None and spec.root and _is_file(spec)
        self._text = spec.root and spec.parameters[0].codec.wire is str

    def form_of(self, headers: Headers) -> str | None:
        """What a request is read as; None for JSON, and for what is refused as if it were to be JSON.

        Raises:
            ForeignPage: a page of another site sends it.
        """
        if LENGTH_HEADER in headers:
            return LENGTH_HEADER.decode()
        content_type = headers.get(b"content-type")
        if content_type is None:
            refuse_foreign_page(headers, self._cors)
            return None
        media, _ = media_type(content_type)
        if media in (TENSORS, NPY):
            return media
        if media != _JSON:
            refuse_foreign_page(headers, self._cors)
        if media == _FORM and self._form is not None:
            return _FORM
        if self._alone is not None and media != _FORM and (media != _JSON or self.always):
            return "file"
        return "text" if self._text and media == "text/plain" else None

    async def read(
        self, form: str | None, receive: Receive, headers: Headers, folder: RequestFolder
    ) -> tuple[bytes, Arguments]:
        """The body, where it is held whole, and the arguments.

        Args:
            form: as `form_of` found it.
            receive: ASGI's.
            headers: of the request.
            folder: of the request.

        Raises:
            Disconnected: the client left.
            ServiceError: the body is too large, or not what it should be.
        """
        if form is None:
            body = await read_body(receive, headers, self._limit)
            return body, self._spec.decode(body)
        return b"", await self._read(form, receive, headers, folder)

    async def _read(self, form: str, receive: Receive, headers: Headers, folder: RequestFolder) -> Arguments:
        if form in (TENSORS, NPY, LENGTH_HEADER.decode()):
            body = await read_binary(receive, self._limit)
            return await self._decode(lambda: self._tensors(form, body, headers, folder), len(body))
        if form == "text":
            try:
                return (bytes(await read_binary(receive, self._limit)).decode(),), {}
            except UnicodeDecodeError:
                raise InvalidArgument("$: expected text in UTF-8", details={"path": "$"}) from None
        media, boundary = media_type(headers.get(b"content-type", b""))
        if form == _FORM:
            assert self._form is not None
            fields = await read_form(pieces(receive, self._limit), boundary, folder)
            tree = self._form.tree((field.name, field.value) for field in fields)
            size = sum(len(f.value.data or b"" if isinstance(f.value, Upload) else f.value) for f in fields)
            stored = any(isinstance(f.value, Upload) and f.value.stored is not None for f in fields)
            return await self._decode(lambda: tree, _LARGE + 1 if stored else size)
        return await self._file(await read_upload(pieces(receive, self._limit), folder, media))

    async def _file(self, upload: Upload) -> Arguments:
        parameter = self._alone
        assert parameter is not None
        start = upload.data or b""
        if not start and upload.stored is None and self._spec.root and not self._spec.parameters[0].required:
            return self._spec.decode(b"")
        if upload.content_type == _JSON and start[:6].lower() == b'"data:':
            return self._spec.decode(start)
        if start[:8].lower().startswith(_ADDRESS) and len(start) < 4096 and not start.strip().count(b"\n"):
            raise UnprocessableEntity("$: an address is not fetched: send the file itself", details={"path": "$"})
        tree = upload if self._spec.root else {parameter: upload}
        return await self._decode(lambda: tree, len(start) if upload.stored is None else _LARGE + 1)

    def _tensors(self, form: str, body: bytearray, headers: Headers, folder: RequestFolder) -> Any:
        if form in (TENSORS, NPY):
            return arguments_tree(self._spec, form, body)
        folder.inference = inference_request(body, headers)
        return inference_tree(self._spec, folder.inference)

    async def _decode(self, tree: Callable[[], Any], size: int) -> Arguments:
        if size <= _LARGE:
            return self._spec.decode_tree(tree())
        # images take their time: another thread decodes them, while requests go on
        context = contextvars.copy_context()
        work = lambda: context.run(lambda: self._spec.decode_tree(tree()))  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def in_memory(self, form: str | None, headers: Headers) -> bool:
        """Look at what the headers say of a body; whether it is held in memory, so that its length counts there.

        Raises:
            ServiceError: it is too large, compressed, or of a type that is not read.
        """
        if form is None:
            check_headers(headers, self._limit)
        else:
            check_size(headers, self._limit)
        return form not in (_FORM, "file")

    def folder(self) -> RequestFolder:
        """A new request's folder, which files inside JSON are put into as well."""
        made = RequestFolder()
        FOLDER.set(made)
        return made


def inference_request(body: bytearray, headers: Headers) -> InferenceRequest:
    """Read the body of an Open Inference Protocol request.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return read_inference(body, headers[LENGTH_HEADER])
    except ValueError as error:
        raise InvalidArgument(f"$: {error}", details={"path": "$"}) from None


def _sole_file(spec: MethodSpec) -> str | None:
    """The name of the parameter that a whole body may be."""
    if spec.spread is not None:
        return None
    found = [parameter.name for parameter in spec.parameters if parameter.codec.file]
    others = [parameter.name for parameter in spec.parameters if parameter.required and not parameter.codec.file]
    return found[0] if len(found) == 1 and not others else None


def _is_file(spec: MethodSpec) -> bool:
    return spec.parameters[0].codec.describe("{name}", True)[0].get("type") == "file"
