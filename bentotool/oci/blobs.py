"""Writing blobs: nothing is visible before it is whole and verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.copying import clone_file
from bentotool.oci.digest import CHUNK
from bentotool.oci.partial import claim_file, still_ours
from bentotool.paths import fsync_directory, make_folder

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout

__all__ = ["RECEIVED", "BlobWriter", "DiskFullError", "storage_error", "without_room"]

RECEIVED = "received"
"""In the store's quarantine: the last bytes that came from elsewhere and were not those of their digest."""

_WORTH_KEEPING = 1 << 20  # bytes; less is fetched again sooner than it is looked for


class DiskFullError(BentotoolError):
    """The disk, or the user's share of it, is full."""

    code = "disk_full"


def storage_error(error: OSError, where: Path) -> BentotoolError:
    """What the user is told when the disk refuses."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return DiskFullError(
            f"no space left on the disk that holds {where}", hint="free some space, or choose another disk with --store"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BentotoolError(
            f"{where} cannot be written: {error.strerror}", hint="choose a folder of yours with --store"
        )
    return BentotoolError(f"{where} cannot be written: {error}")


def without_room(error: DiskFullError, done: int, total: int, what: str, where: Path | None = None) -> DiskFullError:
    """The same failure, saying how many bytes found no room; what it says of that already stays.

    Args:
        done, total: bytes.
        what: what they are bytes of.
        where: names the disk in place of what the failure named.
    """
    said = error.message if where is None else f"no space left on the disk that holds {where}"
    missing = total - done
    if "missing" in error.details:
        amount, details = error.message.rpartition(": ")[2], error.details
        said = error.message.rpartition(": ")[0] if where is None else said
    elif missing > 0:
        amount, details = (
            f"{missing} of {total} bytes of the {what} found no room",
            {"missing": missing, "total": total},
        )
    else:
        amount, details = "", {}
    return DiskFullError(f"{said}: {amount}" if amount else said, hint=error.hint, details=details)


class BlobWriter:
    """Writes one blob: hash while writing, publish by rename. Without :meth:`commit` nothing remains to be seen.

    Args:
        resume: the digest of the blob, for work that may be taken up: what is written then survives this process
            under a temporary name, and :meth:`take_up` finds it.
    """

    def __init__(self, layout: Layout, resume: str | None = None) -> None:
        self._layout = layout
        self._resumable = resume is not None
        self._file: BinaryIO
        try:
            if resume is not None:
                self._path, self._file = claim_file(layout.temporary(), f"part-{resume[7:]}")
            else:
                self._path = layout.temporary() / secrets.token_hex(16)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
                self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        except OSError as error:
            raise storage_error(error, layout.root) from None
        self._hash = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keep = self._resumable and self.size >= _WORTH_KEEPING
        keep = keep and error is not None and not isinstance(error, (VerificationError, DiskFullError))
        ours = not self._resumable or self._file.closed or still_ours(self._path, self._file)
        self._file.close()
        if ours and not keep:
            with contextlib.suppress(OSError):
                if self.size and isinstance(error, VerificationError):
                    self._set_aside(error)
                self._path.unlink()

    def _set_aside(self, error: VerificationError) -> None:
        """Keep what came instead, for who wants to look. Only the last: a registry must not fill the disk."""
        folder = self._layout.root / "quarantine"
        make_folder(folder)
        os.replace(self._path, folder / RECEIVED)
        error.details["quarantined"] = str(folder / RECEIVED)

    def take_up(self, limit: int, also: Callable[[memoryview], object]) -> int:
        """Go on after what an earlier writer left.

        Args:
            limit: the size in bytes of the whole blob; a longer rest is not its beginning, and is dropped.
            also: given the bytes, piece by piece.

        Returns:
            how many bytes there are.
        """
        try:
            if os.fstat(self._file.fileno()).st_size > limit:
                self._file.truncate(0)
            buffer = memoryview(bytearray(CHUNK))
            while count := self._file.readinto(buffer):  # type: ignore[attr-defined]
                self.feed(buffer[:count])
                also(buffer[:count])
        except OSError as error:
            raise storage_error(error, self._layout.root) from None
        return self.size

    def restart(self) -> None:
        """Drop what an earlier writer left."""
        try:
            self._file.truncate(0)
        except OSError as error:
            raise storage_error(error, self._layout.root) from None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            BentotoolError: when the disk is full or refuses.
        """
        self.feed(data)
        self.append(data)

    def feed(self, data: bytes | memoryview) -> None:
        """Hash bytes that another thread appends, or that :meth:`clone` brought."""
        self._hash.update(data)
        self.size += len(data)

    def append(self, data: bytes | memoryview) -> None:
        """Append bytes that another thread feeds to the hash.

        Raises:
            BentotoolError: when the disk is full or refuses.
        """
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise storage_error(error, self._layout.root) from None

    def clone(self, source: Path) -> BinaryIO | None:
        """Make the blob share the disk blocks of ``source``, where the file system can.

        Returns:
            the blob's bytes, opened for reading, all of which must then be fed; None when nothing was done.
        """
        if self._file.tell() or not clone_file(source, self._path):
            return None
        self._file.close()
        self._file = self._path.open("r+b", buffering=0)  # on macOS the clone is another file than the empty one
        return self._path.open("rb", buffering=0)

    def commit(self, digest: str | None = None, size: int | None = None) -> tuple[str, int]:
        """Publish the blob under its digest.

        Args:
            digest: the digest it must have, when it is known.
            size: the size in bytes it must have, when it is known.

        Returns:
            its digest and size.

        Raises:
            VerificationError: when the bytes written are not the ones expected; nothing is published.
        """
        actual = f"sha256:{self._hash.hexdigest()}"
        if size is not None and size != self.size:
            raise VerificationError(f"expected {size} bytes for {digest}, got {self.size}")
        if digest is not None and digest != actual:
            raise VerificationError(f"expected {digest}, got {actual}")
        # Reading a blob costs less than to replace one that is sound: that would part it from the folders sharing it.
        if not self._layout.renew_sound(actual, self.size):
            damaged = self._layout.has(actual)
            self._publish(self._layout.blob_path(actual))
            if damaged:  # what was noted of it, as of a linked file, is not true of what took its place
                self._layout.forget_traces(actual)
        return actual, self.size

    def _publish(self, target: Path) -> None:
        try:
            try:
                self._rename(target)
            except FileNotFoundError:  # no lock kept out another process, which goes on with a copy under its own name
                self._rescue()
                self._rename(target)
        except OSError as error:
            # Windows refuses to replace a file that another process has open: same content, already there.
            if not target.exists():
                raise storage_error(error, self._layout.root) from None
        finally:
            self._file.close()
        fsync_directory(target.parent)

    def _rename(self, target: Path) -> None:
        os.fsync(self._file.fileno())
        if self._resumable and not still_ours(self._path, self._file):
            raise FileNotFoundError(self._path)
        if sys.platform == "win32":  # it does not rename what is open
            self._file.close()
        self._path.chmod(0o444)
        os.utime(self._path)  # it may carry its source's time
        os.replace(self._path, target)

    def _rescue(self) -> None:
        """Copy the bytes to a new file, under a name that nobody takes up; the old one has none any more."""
        if not self._resumable:
            raise FileNotFoundError(self._path)
        path, again = self._layout.temporary() / secrets.token_hex(16), hashlib.sha256()
        with self._file as old:
            old.seek(0)
            self._path, self._resumable = path, False
            self._file = path.open("xb", buffering=0)
            while piece := old.read(CHUNK):
                again.update(piece)
                self.append(piece)
        if again.digest() != self._hash.digest():
            raise BentotoolError("another process took over this transfer", hint="wait for it, or try again")
