"""Answers that are not JSON: files from disk, images, tensors."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from bentotool.runtime.deadlines import Send
from bentotool.runtime.headers import BODILESS, merged, without_length
from bentotool.sdk.answers import render_answer
from bentotool.sdk.binary import render_binary, wanted
from bentotool.sdk.context import Context
from bentotool.sdk.exceptions import InvalidOutput
from bentotool.sdk.files import FOLDER, Rendered
from bentotool.sdk.inference_protocol import LENGTH_HEADER
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.tensors import MEDIA_TYPE as TENSORS

__all__ = ["is_binary", "render", "send_rendered"]

_PIECE = 256 * 1024


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the caller takes, or has sent, tensors in binary."""
    accept = headers.get(b"accept")
    return (accept is not None and wanted(accept) is not None) or LENGTH_HEADER in headers


async def render(spec: MethodSpec, value: object, headers: Mapping[bytes, bytes]) -> Rendered | None:
    """The answer in another form than JSON, where its type or the caller asks for one; None for JSON.

    Raises:
        InvalidOutput: the value is not of the declared type.
    """
    form, request = wanted(headers.get(b"accept", b"")), None
    if LENGTH_HEADER in headers and (folder := FOLDER.get(None)) is not None and folder.inference is not None:
        form, request = TENSORS, folder.inference
    if form is not None:
        made = render_binary(spec.name, spec.output, value, form, request)
        if made is not None:
            return made
    if spec.output.render is None:
        return None
    # images are encoded by another thread, while requests go on
    return await asyncio.get_running_loop().run_in_executor(None, render_answer, spec.name, spec.output, value)


async def send_rendered(
    name: str, answer: Rendered, send: Send, request_id: bytes, context: Context | None, gone: Callable[[], bool]
) -> int:
    """Send it; give the HTTP status. A file is read from disk piece by piece.

    Raises:
        InvalidOutput: the file is not there, or no regular file.
    """
    file: IO[bytes] | None = None
    content = answer.content
    if isinstance(content, Path):
        file, size = await asyncio.get_running_loop().run_in_executor(None, _open, name, content)
    else:
        size = sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in content)
    try:
        start = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"content-length", b"%d" % size),
            (b"x-request-id", request_id),
            *((key.encode("latin-1"), value.encode("latin-1")) for key, value in answer.headers.items()),
        ]
        status = 200
        if context is not None:
            status = context.response.status_code
            start = merged(start, context.response.raw_headers())
        if status in BODILESS:
            await send({"type": "http.response.start", "status": status, "headers": without_length(start)})
            await send({"type": "http.response.body", "body": b""})
            return status
        await send({"type": "http.response.start", "status": status, "headers": start})
        if file is not None:
            await _send_file(file, size, send, gone)
        else:
            assert not isinstance(content, Path)
            await send({"type": "http.response.body", "body": b"".join(content)})
        return status
    finally:
        if file is not None:
            file.close()


def _open(name: str, path: Path) -> tuple[IO[bytes], int]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would be waited for
            raise InvalidOutput(f"{name} returned {path.name}, which is no regular file")
        file = path.open("rb")
    except OSError as error:
        raise InvalidOutput(f"{name} returned the file {path.name}, which cannot be read: {error.strerror}") from error
    return file, os.fstat(file.fileno()).st_size


async def _send_file(file: IO[bytes], size: int, send: Send, gone: Callable[[], bool]) -> None:
    """Exactly `size` bytes, which the answer's head has promised, unless the client leaves."""
    loop, left = asyncio.get_running_loop(), size
    while left and not gone():
        piece = await loop.run_in_executor(None, file.read, min(_PIECE, left))
        if not piece:
            raise ConnectionAbortedError("the file became shorter while it was sent")
        left -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
    if not size:
        await send({"type": "http.response.body", "body": b""})
