"""Files as they come in: small ones stay in memory, larger ones go to the request's folder piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from bentotool.sdk.files import RequestFolder, Upload

__all__ = ["Sink", "read_upload"]

_IN_MEMORY = 256 * 1024
_PIECE = 1024 * 1024


class Sink:
    """Takes the pieces of one file.

    Args:
        folder: where it goes when it is larger than what stays in memory.
        name: as the caller calls it.
        content_type: as the caller says.
    """

    def __init__(self, folder: RequestFolder, name: str | None, content_type: str | None) -> None:
        self.size = 0
        self._folder, self._name, self._content_type = folder, name, content_type
        self._held: list[bytes] = []
        self._held_size = 0
        self._path: Path | None = None
        self._file: IO[bytes] | None = None

    async def write(self, piece: bytes) -> None:
        """Take a piece. The disk is written by a thread, so that other requests go on."""
        self._held.append(piece)
        self._held_size += len(piece)
        self.size += len(piece)
        if self._held_size >= (_IN_MEMORY if self._file is None else _PIECE):
            await asyncio.get_running_loop().run_in_executor(None, self._flush)

    def _flush(self) -> None:
        if self._file is None:
            self._path = self._folder.new(self._name, self._content_type)
            self._file = self._path.open("xb")
        self._file.write(b"".join(self._held))
        self._held, self._held_size = [], 0

    async def finish(self) -> Upload:
        """The file, complete."""
        if self._file is None:
            return Upload(self._folder, self._name, self._content_type, b"".join(self._held))
        await asyncio.get_running_loop().run_in_executor(None, self._flush)
        self._file.close()
        return Upload(self._folder, self._name, self._content_type, None, self._path)

    def close(self) -> None:
        """Let go of a file that did not come to its end; its folder is removed by whoever made it."""
        if self._file is not None:
            self._file.close()


async def read_upload(body: AsyncIterator[bytes], folder: RequestFolder, content_type: str | None) -> Upload:
    """A body that is one file."""
    sink = Sink(folder, None, content_type)
    try:
        async for piece in body:
            await sink.write(piece)
        return await sink.finish()
    finally:
        sink.close()
