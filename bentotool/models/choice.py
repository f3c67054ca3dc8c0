"""Which files of a model to take, where not all are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from bentotool.errors import UsageError
from bentotool.interfaces import SourceModel

__all__ = ["EVERYTHING", "Choice"]


@dataclass(frozen=True)
class Choice:
    """Patterns over the names of files, as in shells: ``*`` also matches ``/``; one without ``/`` matches at any depth.

    Attributes:
        include: what to take; empty takes all.
        exclude: what to leave out of that.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __call__(self, name: str) -> bool:
        """Whether the file ``name``, with forward slashes, is wanted."""
        return (not self.include or _any(name, self.include)) and not _any(name, self.exclude)

    @property
    def everything(self) -> bool:
        return not self.include and not self.exclude

    def of(self, model: SourceModel) -> SourceModel:
        """The model with the wanted files alone; a part of another, it does not bear that one's version.

        Raises:
            UsageError: when no file is left, or a pattern takes none.
        """
        if self.everything:
            return model
        self.check([file.name for file in model.files])
        return replace(model, files=tuple(file for file in model.files if self(file.name)), version=None)

    def check(self, names: Sequence[str]) -> None:
        """Refuse patterns that leave nothing, or take nothing: they are mistyped.

        Args:
            names: the files there are.

        Raises:
            UsageError: naming the pattern.
        """
        for pattern in self.include:
            if not any(_any(name, (pattern,)) for name in names):
                raise UsageError(
                    f"no file of the model matches {pattern!r}", hint=f"it has {', '.join(sorted(names)[:10])}"
                )
        if not any(map(self, names)):
            raise UsageError("no file of the model is left", hint="include more, or exclude less")


EVERYTHING = Choice()


def _any(name: str, patterns: Sequence[str]) -> bool:
    base = name.rpartition("/")[2]
    return any(
        fnmatchcase(name, pattern) or ("/" not in pattern and fnmatchcase(base, pattern)) for pattern in patterns
    )
