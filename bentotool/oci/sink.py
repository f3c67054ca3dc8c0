"""Receiving layers: taken apart on the way, compared with what they must be, and continued after a break."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from bentotool.errors import VerificationError
from bentotool.oci.blobs import BlobWriter
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import CHUNK
from bentotool.oci.layers import LayerFile, layer_files
from bentotool.oci.renewal import Renewal
from bentotool.oci.tar import BLOCK, TRAILER, tar_header

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout

__all__ = ["LayerSink"]

_RESUMABLE = 8 << 20  # bytes; a smaller file is received again sooner than its rest is looked for
_Segment = bytes | LayerFile


class LayerSink:
    """Receives a layer in pieces of any length and verifies it.

    An ordinary layer becomes one blob. A virtual layer is taken apart on the way: headers and padding must equal, byte
    for byte, those that would be generated, each file must have its recorded digest, and all of it the layer's digest.
    Each file is published when it is whole, under its own digest, so what came is not lost when the rest does not.

    Args:
        renewal: keeps what is published from being collected while other layers are on their way.
    """

    def __init__(self, layout: Layout, descriptor: Descriptor, renewal: Renewal | None = None) -> None:
        self._layout = layout
        self._renewal = renewal or Renewal(layout)
        self._descriptor = descriptor
        files = layer_files(descriptor)
        self._hash = hashlib.sha256()
        self._received = 0
        # An ordinary layer is a single file without a frame.
        whole = LayerFile("", descriptor.size, descriptor.digest)
        self._segments: list[_Segment] = [whole] if files is None else list(_frame(files))
        self._virtual = files is not None
        self._within = 0
        self._writer: BlobWriter | None = None
        self._resumes = False

    def __enter__(self) -> LayerSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            self._writer.__exit__(kind, error, trace)

    def resume(self) -> int:
        """Take up what an earlier try left in the layout; from now on, what comes is kept for a later one.

        Returns:
            how many bytes at the start of the layer need not be received.
        """
        self._resumes = True
        if not self._found():
            return 0
        while self._segments:
            segment = self._segments[0]
            if isinstance(segment, bytes):
                self._count(segment)
                self._segments.pop(0)
            elif not self._take_file(segment):
                break
        return self._received

    def _found(self) -> bool:
        """Whether anything is here of the first file that has content."""
        first = next((each for each in self._segments if isinstance(each, LayerFile) and each.size), None)
        return first is not None and (
            self._layout.has_sized(first.sha256, first.size) or self._layout.has_part(first.sha256)
        )

    def _take_file(self, file: LayerFile) -> bool:
        """Count what is here of a file; whether it is all of it."""
        if self._layout.has_sized(file.sha256, file.size):
            with self._layout.blob_path(file.sha256).open("rb", buffering=0) as blob:
                buffer = memoryview(bytearray(CHUNK))
                while count := blob.readinto(buffer):
                    self._count(buffer[:count])
            self._segments.pop(0)
            self._renewal.finished(file.sha256)
            return True
        if file.size < _RESUMABLE:
            return False
        self._writer = self._layout.writer(file.sha256)
        self._within = self._writer.take_up(file.size, self._count)
        if self._within < file.size:
            return False
        self._end_segment()
        return True

    def _count(self, data: bytes | memoryview) -> None:
        if self._virtual:
            self._hash.update(data)
        self._received += len(data)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the layer.

        Raises:
            VerificationError: as soon as the bytes cannot be those of the layer.
        """
        if self._received + len(data) > self._descriptor.size:
            raise VerificationError(f"layer {self._descriptor.digest} is longer than its {self._descriptor.size} bytes")
        self._count(data)
        self._renewal.tick()
        view = memoryview(data)
        while view:
            view = view[self._consume(view) :]

    def _consume(self, view: memoryview) -> int:
        while not _length(self._segments[0]):
            self._open(self._segments[0])
            self._end_segment()
        segment = self._segments[0]
        length = _length(segment)
        count = min(len(view), length - self._within)
        if isinstance(segment, bytes):
            if segment[self._within : self._within + count] != view[:count]:
                raise VerificationError(
                    f"layer {self._descriptor.digest} is not the canonical form of the files it lists"
                )
        else:
            if self._writer is None:
                self._open(segment)
            assert self._writer is not None
            self._writer.write(view[:count])
        self._within += count
        if self._within == length:
            self._end_segment()
        return count

    def _open(self, segment: _Segment) -> None:
        if isinstance(segment, LayerFile):
            keep = self._resumes and segment.size >= _RESUMABLE
            self._writer = self._layout.writer(segment.sha256 if keep else None)
            if keep:
                self._writer.restart()

    def _end_segment(self) -> None:
        segment = self._segments[0]
        if isinstance(segment, LayerFile) and self._writer:
            with self._writer as writer:
                writer.commit(segment.sha256, segment.size)
            self._writer = None
            self._renewal.finished(segment.sha256)
        self._segments.pop(0)
        self._within = 0

    def commit(self) -> None:
        """Check that the layer came whole and is what it should be.

        Raises:
            VerificationError: when bytes are missing or a digest differs.
        """
        expected = self._descriptor
        if self._received != expected.size:
            raise VerificationError(f"expected {expected.size} bytes for {expected.digest}, got {self._received}")
        while self._segments:  # nothing but empty files can be left
            self._open(self._segments[0])
            self._end_segment()
        if self._virtual and f"sha256:{self._hash.hexdigest()}" != expected.digest:
            raise VerificationError(f"expected {expected.digest}, got sha256:{self._hash.hexdigest()}")


def _frame(files: Sequence[LayerFile]) -> Sequence[_Segment]:
    segments: list[_Segment] = []
    for file in files:
        segments += [tar_header(file.entry), file]
        if file.size % BLOCK:
            segments.append(bytes(-file.size % BLOCK))
    return [*segments, TRAILER]


def _length(segment: _Segment) -> int:
    return segment.size if isinstance(segment, LayerFile) else len(segment)
