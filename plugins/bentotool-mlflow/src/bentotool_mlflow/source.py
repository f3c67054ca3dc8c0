"""``mlflow:FOLDER``, ``mlflow:models:/NAME/VERSION`` and ``mlflow:runs:/RUN/PATH``, through MLflow's own client.

The client's own settings apply: ``MLFLOW_TRACKING_URI``, ``MLFLOW_REGISTRY_URI``, ``MLFLOW_TRACKING_TOKEN`` and the
like. Files are data here: nothing of a model is imported or run.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, NotFoundError, UnsafeError, UsageError
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest
from bentotool.models.importing import local_files
from bentotool.oci.copying import clone_file
from bentotool.oci.tar import check_entry_names
from bentotool_mlflow.registry import Place, find_model, find_run, require_mlflow, told

_SCHEME = re.compile(r"mlflow:(?!//)", re.IGNORECASE)
_REGISTERED = re.compile(r"models:/+(?P<name>[^/@]+)(?:/?@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))?")
_RUN = re.compile(r"runs:/+(?P<run>[\w-]+)/(?P<path>[^\\?#]+)", re.ASCII)
_FORMS = "write mlflow:FOLDER, mlflow:models:/NAME/VERSION, mlflow:models:/NAME@ALIAS or mlflow:runs:/RUN/PATH"
_MAX_FILES = 10_000
_MAX_DEPTH = 50
_MAX_NAME = 100
_ODD = re.compile(r"[^\w.-]+", re.ASCII)
_SETTINGS = {  # where the user says nothing
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 7 of its own take four minutes where nobody answers
}


class MlflowSource:
    """See :class:`bentotool.protocols.Source`."""

    def fetch(self, request: SourceRequest) -> SourceModel:
        """Copy a folder, or download what a run or the registry names, into the request's folder."""
        rest = _SCHEME.sub("", request.uri, count=1)
        if request.checksum is not None:
            raise UsageError("an MLflow model has many files, so --checksum cannot be checked", hint="leave it out")
        registered, run = _REGISTERED.fullmatch(rest), _RUN.fullmatch(rest)
        if rest.lower().startswith(("models:", "runs:", "mlflow://")) and not registered and not run:
            raise UsageError(f"{request.uri} names no MLflow model", hint=_FORMS)
        if not rest:
            raise UsageError(f"{request.uri} names nothing after the colon", hint=_FORMS)
        if not registered and not run:
            folder = Path(rest)
            name = folder.resolve().name
            return SourceModel(_copied(folder, _room(request, name), request, rest), name, framework="mlflow")
        with _settings():
            require_mlflow()
            try:
                place = find_run(run["run"], run["path"]) if run else find_model(**_named(registered))
                files = _fetched(place, request)
            except BentotoolError:
                raise
            except Exception as error:  # of requests, of cloud clients, and MLflow's own
                raise told(error, rest) from error
        return SourceModel(files, place.name, place.version, "mlflow", place.labels, place.metadata)


def _named(found: re.Match[str] | None) -> dict[str, str]:
    return {key: value or "" for key, value in found.groupdict().items()} if found else {}


@contextmanager
def _settings() -> Iterator[None]:
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _fetched(place: Place, request: SourceRequest) -> tuple[SourceFile, ...]:
    room = _room(request, place.name)
    try:
        if place.folder:
            return _copied(place.folder, room, request, place.uri)
        return _downloaded(place, room, request)
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)  # nothing goes on from a part
        raise


def _room(request: SourceRequest, name: str) -> Path:
    """A folder called like the model, as messages call a model by its folder's name."""
    room = request.folder.resolve() / (_ODD.sub("-", name)[:_MAX_NAME].strip(".- ") or "model")
    room.mkdir(exist_ok=True)
    return room


def _copied(source: Path, room: Path, request: SourceRequest, title: str) -> tuple[SourceFile, ...]:
    """A copy, as whoever owns the folder may write to it: by reflink where the file system has it."""
    if not source.is_dir():
        raise NotFoundError(f"{title} is not a folder", hint="give the folder that holds MLmodel")
    if not (source / "MLmodel").is_file():
        raise _no_model(title)
    files = local_files(source)
    if sum(file.path.stat().st_size for file in files) > request.max_bytes:
        raise _too_large(title, request.max_bytes)
    return tuple(_copy(file, room / file.name, request) for file in files)


def _copy(file: SourceFile, target: Path, request: SourceRequest) -> SourceFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    if not clone_file(file.path, target):
        shutil.copyfile(file.path, target)
    request.advance(target.stat().st_size)
    return SourceFile(target, file.name)


def _downloaded(place: Place, room: Path, request: SourceRequest) -> tuple[SourceFile, ...]:
    sizes = _listed(place.repository, place.uri)
    if "MLmodel" not in sizes:
        raise _no_model(place.uri)
    if sum(sizes.values()) > request.max_bytes:
        raise _too_large(place.uri, request.max_bytes)
    files, left = [], request.max_bytes
    for name in sizes:
        target = room / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # what every kind of repository implements; its public download asks the server whether the file is a folder
        # and, where it says yes, takes whatever that lists
        place.repository._download_file(name, str(target))
        if target.is_symlink() or not target.is_file():
            raise UnsafeError(f"{place.uri}: {name!r:.100} is no file", hint="upload the model again")
        size = target.stat().st_size
        left -= size
        if left < 0:  # more than the listing stated
            raise _too_large(place.uri, request.max_bytes)
        request.advance(size)
        files.append(SourceFile(target, name))
    return tuple(files)


def _listed(repository: Any, title: str) -> dict[str, int]:
    """Names and sizes of all files; UnsafeError for names that lead out of the folder, or go round in circles."""
    sizes: dict[str, int] = {}
    waiting: list[str | None] = [None]
    seen = 0
    while waiting:
        folder = waiting.pop()
        for item in repository.list_artifacts(folder):
            seen += 1
            inside = folder is None or item.path.startswith(f"{folder}/")
            if not inside or item.path.count("/") > _MAX_DEPTH or seen > _MAX_FILES:
                raise UnsafeError(f"{title} lists {item.path!r:.100}, or more files than {_MAX_FILES}", hint=_NAMES)
            check_entry_names([item.path])
            if item.is_dir:
                waiting.append(item.path)
            else:
                sizes[item.path] = int(item.file_size or 0)
    check_entry_names(sizes)
    return sizes


_NAMES = "names of files have to be relative and portable; upload the model again"


def _no_model(title: str) -> UsageError:
    return UsageError(f"{title} is no MLflow model: it has no MLmodel", hint="give the folder that holds MLmodel")


def _too_large(title: str, limit: int) -> UnsafeError:
    return UnsafeError(f"{title} is larger than {limit} bytes", hint="raise the limit with --max-size if that is right")
