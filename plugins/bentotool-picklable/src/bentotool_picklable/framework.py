"""Detects, describes and saves pickles; unpickles nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bentotool.errors import MissingDependencyError, UsageError
from bentotool.interfaces import Match, ModelInfo, SourceFile
from bentotool.models.main_files import main_files
from bentotool.sdk.wording import kind_of

NAME = "picklable"
_SUFFIXES = (".pkl", ".pickle")
_CONFIDENCE = 0.1  # whoever knows what is in the pickle knows better
_PROTOCOL = 5  # the highest of Python 3.8 and later, so that no later default changes what is written


class PicklableFramework:
    """See :class:`bentotool.interfaces.Framework`."""

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        main = _main_file(files)
        if main is None or _protocol(main.path) is None:
            return None
        return Match(NAME, "pickle", _CONFIDENCE, main.name)

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        main = _main_file(files)
        protocol = _protocol(main.path) if main else None
        if main is None or protocol is None:
            raise UsageError("there is no pickle among the files")
        return ModelInfo(
            framework=NAME,
            format="pickle",
            metadata={"protocol": protocol, "needs_trust": ["it is a pickle"]},
            requirements=("cloudpickle>=3.0",),
            safety="pickle",
            main_file=main.name,
        )

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write an object as ``model.pkl``."""
        if options:
            raise UsageError(f"picklable takes no option {', '.join(sorted(options))} when saving")
        try:
            import cloudpickle
        except ImportError as error:
            raise MissingDependencyError("cloudpickle", purpose="to save Python objects") from error
        try:
            content = cloudpickle.dumps(obj, protocol=_PROTOCOL)
        except Exception as error:  # whatever an object's own methods raise
            text = str(error).replace("\n", " ")[:200]
            raise UsageError(f"{kind_of(obj)} cannot be pickled: {type(error).__name__}: {text}") from error
        (Path(directory) / "model.pkl").write_bytes(content)


def _main_file(files: Sequence[SourceFile]) -> SourceFile | None:
    """The one file that is a pickle; of several, the one that is called so."""
    found = main_files(files, lambda file: _protocol(file.path) is not None, _SUFFIXES, sure=False)
    if len(found) > 1:
        names = ", ".join(sorted(file.name for file in found)[:5])
        raise UsageError(f"there are several pickles: {names}", hint="import one file")
    return found[0] if found else None


def _protocol(path: Path) -> int | None:
    """Of protocols 2 to 5: an opcode and its number at the start, and the opcode "stop" at the end."""
    with path.open("rb") as file:
        head = file.read(2)
        if len(head) < 2 or head[0] != 0x80 or not 2 <= head[1] <= 5:
            return None
        file.seek(-1, 2)
        return head[1] if file.read(1) == b"." else None
