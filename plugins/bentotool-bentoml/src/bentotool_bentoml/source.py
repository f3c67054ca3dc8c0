"""``bentoml:NAME[:VERSION]``, ``bentoml:FOLDER``, ``bentoml:FILE`` and ``FILE.bentomodel``; BentoML is not needed.

Files are data here: nothing of a model is imported, unpickled or run.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from bentotool.errors import NotFoundError, UnsafeError, UsageError
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest
from bentotool.models.importing import local_files
from bentotool.oci.copying import clone_file
from bentotool_bentoml.document import read_document
from bentotool_bentoml.export import unpack
from bentotool_bentoml.store import find

_SCHEME = re.compile(r"bentoml:(?://)?", re.IGNORECASE)
_DOCUMENT = "model.yaml"
_PICKLED = "custom_objects.pkl"


class BentomlSource:
    """See :class:`bentotool.protocols.Source`."""

    def fetch(self, request: SourceRequest) -> SourceModel:
        """Copy a model of the store or of a folder, or unpack an export, into the request's folder."""
        rest = _SCHEME.sub("", request.uri, count=1)
        if request.checksum is not None:
            raise UsageError("a model of BentoML has many files, so --checksum cannot be checked", hint="leave it out")
        room = request.folder.resolve() / "model"
        shutil.rmtree(room, ignore_errors=True)  # of an attempt that broke off
        path = Path(rest).expanduser()
        if path.is_file():
            unpack(path, room, request.max_bytes, request.advance)
            files = _files_of(room, rest)
        else:
            written_as_path = "/" in rest or "\\" in rest
            source = path if path.is_dir() and (written_as_path or (path / _DOCUMENT).is_file()) else _stored(rest)
            files = _copied(_files_of(source, rest), room, request, rest)
        return _model(files, rest)


def read_model(folder: Path, title: str) -> SourceModel:
    """The model in a folder with a ``model.yaml``; its files stay where they are.

    Raises:
        UsageError: it is no model of BentoML.
        UnsafeError: a link leads out of it.
    """
    return _model(_files_of(folder, title), title)


def _model(files: list[SourceFile], title: str) -> SourceModel:
    by_name = {file.name: file for file in files}
    left_out = [name for name in (_PICKLED,) if name in by_name]
    document = read_document(by_name[_DOCUMENT].path, left_out)
    kept = tuple(file for file in files if file.name not in (_DOCUMENT, *left_out))
    if not kept:
        raise UsageError(f"{title} holds no files but its {_DOCUMENT}", hint="export the model again with BentoML")
    return SourceModel(kept, document.name, document.version, document.framework, document.labels, document.metadata)


def _stored(text: str) -> Path:
    if "/" in text or "\\" in text:
        raise NotFoundError(f"{text} does not exist", hint="write bentoml:NAME:VERSION, bentoml:FOLDER or bentoml:FILE")
    return find(text)


def _files_of(folder: Path, title: str) -> list[SourceFile]:
    if not (folder / _DOCUMENT).is_file():
        raise UsageError(f"{title} is no model of BentoML: it has no {_DOCUMENT}", hint="give the folder that holds it")
    return local_files(folder)


def _copied(files: list[SourceFile], room: Path, request: SourceRequest, title: str) -> list[SourceFile]:
    """A copy, as BentoML lets files change after they are saved: by reflink where the file system has it."""
    if sum(file.path.stat().st_size for file in files) > request.max_bytes:
        hint = "raise the limit with --max-size if that is right"
        raise UnsafeError(f"{title} is larger than {request.max_bytes} bytes", hint=hint)
    copies = []
    for file in files:
        target = room / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        if not clone_file(file.path, target):
            shutil.copyfile(file.path, target)
        request.advance(target.stat().st_size)
        copies.append(SourceFile(target, file.name))
    return copies
