"""What a transfer reports while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Progress", "ProgressMaker", "Transferred", "no_progress"]


class Progress(Protocol):
    """Told, from several threads, how many bytes have moved; negative when a try failed and its bytes move again."""

    def advance(self, amount: int) -> None: ...

    def part(self, name: str, total: int) -> AbstractContextManager[Progress]:
        """One of several blobs moved at once; what it is told counts for the whole too."""
        ...


ProgressMaker = Callable[[int, str], AbstractContextManager[Progress]]
"""``(total bytes, label)`` → context manager that gives a :class:`Progress`."""


class _Unwatched:
    def advance(self, amount: int) -> None:
        """Nobody watches."""

    @contextmanager
    def part(self, name: str, total: int) -> Iterator[Progress]:
        yield self


@contextmanager
def no_progress(total: int, label: str) -> Iterator[Progress]:
    """A progress that nobody watches."""
    yield _Unwatched()


@dataclass(frozen=True)
class Transferred:
    """A model or Bento that is now on both sides.

    Attributes:
        kind: ``"model"`` or ``"bento"``.
        digest: of its manifest: the same on both sides, whatever the tag, unless there is a ``source_digest``.
        size: bytes of its own content, as ``show`` gives it; a Bento's models are not counted.
        remote: the reference in the registry.
        moved: bytes of blobs that went over the wire.
        index: digest of the index that a Bento's tag points to.
        models: ``name:version`` of each model of a Bento.
        source_digest: where two manifests stand for the same files, the one they were taken from: of another tool's
            manifest, imported under ``digest``; of a model in the store, sent file by file under ``digest``.
        images: platforms of a Bento's images that came or went along.
        referrers: how many signatures, SBOMs and the like came or went along, or were there.
        notes: which were left out, and why.
    """

    kind: str
    name: str
    version: str
    digest: str
    size: int
    remote: str
    moved: int
    index: str | None = None
    models: tuple[str, ...] = ()
    source_digest: str | None = None
    images: tuple[str, ...] = ()
    referrers: int = 0
    notes: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def to_dict(self, moved: str) -> dict[str, Any]:
        """The JSON form; ``moved`` names the count of bytes: ``"sent"`` or ``"fetched"``."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "tag": self.tag,
            "digest": self.digest,
            "size": self.size,
            "remote": self.remote,
            moved: self.moved,
            "referrers": self.referrers,
        }
        if self.kind == "bento":
            document |= {"index": self.index, "models": list(self.models), "images": list(self.images)}
        if self.notes:
            document["notes"] = list(self.notes)
        if self.source_digest:
            document["source_digest"] = self.source_digest
        return document
