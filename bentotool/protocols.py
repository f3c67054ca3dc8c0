"""What a plugin implements: small protocols, each with when it is called, arguments, return value and an example.

The records they speak in are those of :mod:`bentotool.interfaces`. This module imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from bentotool.interfaces import JSON, Match, ModelInfo, SourceFile, SourceModel, SourceRequest

__all__ = ["Archive", "ArchivedBento", "Framework", "Loader", "Source"]


@runtime_checkable
class Framework(Protocol):
    """Reads and writes models of one framework; never executes a model.

    When:
        The target of a :class:`FrameworkDecl`, made once in a process that looks at or saves a model.

    Arguments:
        ``files`` are all files of the model. Their content is hostile until proven otherwise: sizes and offsets are
        checked before they are believed, nothing is unpickled, imported or evaluated, and memory is bounded whatever
        a header claims.

    Return:
        See the methods. A file that is of the format and damaged, or asks for what is unsafe, is a
        :class:`~bentotool.errors.BentotoolError` of one line that names the file.

    Example::

        class Text:
            def detect(self, files):
                names = [f.name for f in files if f.name.endswith(".txtmodel")]
                return Match("text", "txt", 0.5, names[0]) if names else None

            def describe(self, files):
                return ModelInfo("text", "txt", main_file=self.detect(files).main_file)

            def save(self, obj, directory, **options):
                (directory / "model.txtmodel").write_text(str(obj), encoding="utf-8")
    """

    def detect(self, files: Sequence[SourceFile]) -> Match | None:
        """Whether these files are this framework's, by structure. None: not mine."""
        ...

    def describe(self, files: Sequence[SourceFile]) -> ModelInfo:
        """Inputs, outputs, facts and needs of files that :meth:`detect` claimed."""
        ...

    def save(self, obj: object, directory: Path, **options: object) -> None:
        """Write ``obj`` into the empty folder ``directory``, in the safest format there is."""
        ...


@runtime_checkable
class Source(Protocol):
    """Fetches the files of a model; executes none of them.

    When:
        ``bentotool model import SCHEME:...``, once for an import.

    Arguments:
        See :class:`SourceRequest`. What a remote says of names and sizes is hostile: names become paths only below
        ``folder``, and no more than ``max_bytes`` are taken.

    Return:
        See the method. A remote that refuses or does not answer is a :class:`~bentotool.errors.RemoteError`.

    Example::

        class Greeting:
            def fetch(self, request):
                path = request.folder / "hello.txtmodel"
                path.write_text("hello", encoding="utf-8")
                return SourceModel((SourceFile(path, path.name),), name="greeting")
    """

    def fetch(self, request: SourceRequest) -> SourceModel:
        """Bring the files to this disk: into the request's folder, or say where they lie."""
        ...


@dataclass(frozen=True)
class ArchivedBento:
    """A Bento of another tool, unpacked: what one of ours is built from.

    Args:
        project: the folder with its code, below the request's folder.
        config: the configuration of the build, with the keys of ``bentofile.yaml``; checked like one.
        models: the models that came with it, by the tag by which ``config`` names each, ``name:version``.
    """

    project: Path
    config: Mapping[str, JSON]
    models: Mapping[str, SourceModel]


@runtime_checkable
class Archive(Protocol):
    """Unpacks a Bento of another tool; executes nothing of it.

    When:
        ``bentotool import FILE`` where the file's name ends in a declared suffix, or ``NAME:FILE``.

    Arguments:
        See :class:`SourceRequest`; ``uri`` is the file's path. Names in the file become paths only below ``folder``,
        and no more than ``max_bytes`` are unpacked.

    Return:
        See :class:`ArchivedBento`. What is wrong with the file is a :class:`~bentotool.errors.BentotoolError`.

    Example::

        class Zipped:
            def unpack(self, request):
                unpack_safely(request.uri, request.folder / "project")
                return ArchivedBento(request.folder / "project", {"service": "service:Main"}, {})
    """

    def unpack(self, request: SourceRequest) -> ArchivedBento:
        """Unpack the file into the request's folder."""
        ...


class Loader(Protocol):
    """The stand-alone loader module: ``load(path, **options)``, and nothing but the standard library and the framework.

    When:
        ``bentotool.<framework>.load_model(...)``, outside and inside a Bento.

    Arguments:
        ``path`` is the main file, or the folder of a model that has none; ``options`` are the caller's. A format of
        class ``pickle`` is loaded only with ``trust=True``.

    Return:
        The framework's own object.

    Example::

        def load(path, **options):
            return open(path, encoding="utf-8").read()
    """

    def load(self, path: Path, **options: object) -> object: ...
