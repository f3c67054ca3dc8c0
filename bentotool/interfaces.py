"""What a plugin hands over: frozen records. What it implements stands in :mod:`bentotool.protocols`.

A declaration hook (:mod:`bentotool.hookspecs`) returns records such as :class:`FrameworkDecl`. A record holds names
and a dotted ``target`` (``"package.module:attribute"``), never the object itself, so that listing plugins imports
nothing heavy; the target is imported when it is used, and then has to satisfy the protocol named in the record's
docstring.

Records check themselves when made and raise :class:`ValueError`: a mistake is its plugin's. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

__all__ = [
    "API_VERSION",
    "JSON",
    "ArchiveDecl",
    "CommandDecl",
    "Credentials",
    "FrameworkDecl",
    "Magic",
    "Match",
    "ModelInfo",
    "PlanAddition",
    "Safety",
    "SourceDecl",
    "SourceFile",
    "SourceModel",
    "SourceRequest",
    "TemplateDecl",
    "TensorSpec",
    "is_target",
]

API_VERSION = 1
"""Version of the plugin interface. A plugin module may state the one it was written for as
``BENTOTOOL_API_VERSION``."""

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"
"""A value that JSON can hold."""

Safety: TypeAlias = Literal["data", "program", "pickle"]
"""``data`` loads by itself; ``program`` loads by itself and is marked; ``pickle`` is refused without ``--trust``."""

SAFETY_CLASSES = ("data", "program", "pickle")

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_COMMAND = re.compile(r"[a-z][a-z0-9-]*(?: [a-z][a-z0-9-]*)?")
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+")
_SUFFIX = re.compile(r"(?:\.[a-z0-9_-]+)+")
_TARGET = re.compile(_MODULE.pattern + ":" + _MODULE.pattern)


def _matching(pattern: re.Pattern[str], value: object, what: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{what} {value!r} is not of the form {pattern.pattern}")


def is_target(value: object) -> bool:
    """Whether a value is a dotted target, ``"package.module:attribute"``."""
    return isinstance(value, str) and _TARGET.fullmatch(value) is not None


def _tuple_of(kind: type, value: object, what: str) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        raise ValueError(f"{what} is {value!r}, not a tuple of {kind.__name__}")


def _relative_path(value: object, what: str) -> None:
    """Refuse a path that is absolute, climbs, or is written in a way that Windows reads differently."""
    parts = PurePosixPath(value).parts if isinstance(value, str) else ()
    if not parts or ".." in parts or parts[0] == "/" or "\\" in str(value) or ":" in parts[0] or "\0" in str(value):
        raise ValueError(f"{what} {value!r} is not a relative path with forward slashes inside the folder")


@dataclass(frozen=True)
class _Declaration:
    """A name, where its implementation lies (``"package.module:attribute"``) and one line for listings."""

    name: str
    target: str
    summary: str

    def __post_init__(self) -> None:
        self._check_name()
        _matching(_TARGET, self.target, "target")
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            raise ValueError(f"summary {self.summary!r} is not one line of text")

    def _check_name(self) -> None:
        _matching(_NAME, self.name, "name")


@dataclass(frozen=True)
class Magic:
    """Bytes that a file of a format has at a fixed place.

    Args:
        offset: where, in bytes from the start; at most 4096.
        data: the bytes.
    """

    offset: int
    data: bytes

    MAX_REACH = 4096

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes) or not self.data:
            raise ValueError(f"magic data {self.data!r} is not bytes")
        if not isinstance(self.offset, int) or not 0 <= self.offset <= self.MAX_REACH - len(self.data):
            raise ValueError(f"magic offset {self.offset!r} is not within the first {self.MAX_REACH} bytes")


@dataclass(frozen=True)
class FrameworkDecl(_Declaration):
    """A framework plugin; ``target`` is a :class:`Framework` (or a class of no arguments that makes one).

    Args:
        loader: module with a :class:`Loader`'s ``load``; its one file travels in the Bento, so it imports nothing of
            the plugin's or bentotool's. A package travels with the modules in it, which import each other relatively.
        suffixes: endings of file names worth a look, lower case with the dot.
        magic: bytes worth a look. A file that shows neither suffix nor magic never causes the target to be imported.
        media_types: media types of the formats.
        predictor: a :class:`~bentotool.predictspec.MakePredictor` that ``bentotool model serve`` asks; empty for none.
    """

    loader: str
    suffixes: tuple[str, ...] = ()
    magic: tuple[Magic, ...] = ()
    media_types: tuple[str, ...] = ()
    predictor: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "-" in self.name:
            raise ValueError(f"framework name {self.name!r} has a dash: it is used as bentotool.<name>")
        _matching(_MODULE, self.loader, "loader")
        _matching(_TARGET, self.predictor or self.target, "predictor")
        _tuple_of(str, self.suffixes, "suffixes")
        _tuple_of(Magic, self.magic, "magic")
        _tuple_of(str, self.media_types, "media_types")
        for suffix in self.suffixes:
            if not suffix.startswith(".") or suffix != suffix.lower():
                raise ValueError(f"suffix {suffix!r} is not lower case with a leading dot")


@dataclass(frozen=True)
class SourceDecl(_Declaration):
    """A place that models come from; ``target`` is a :class:`Source` (or a class of no arguments that makes one).

    Args:
        schemes: URI schemes it answers to, without the colon: ``s3`` for ``s3://bucket/key``, ``mlflow`` for
            ``mlflow:folder``. Two characters at least: one is a drive of Windows.
        suffixes: endings of local files, lower case, that are packages of models rather than models: a path that
            ends so is given to this source as it stands.
        forms: how its addresses are written, for the help: ``s3://BUCKET/KEY``. Without any the schemes are shown.
    """

    schemes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _tuple_of(str, self.schemes, "schemes")
        _tuple_of(str, self.suffixes, "suffixes")
        _tuple_of(str, self.forms, "forms")
        for scheme in self.schemes:
            _matching(_SCHEME, scheme, "scheme")
        for suffix in self.suffixes:
            _matching(_SUFFIX, suffix, "suffix")


@dataclass(frozen=True)
class ArchiveDecl(_Declaration):
    """Files with a Bento of another tool; ``target`` is an :class:`Archive`, or a class of no arguments.

    Args:
        suffixes: endings of such files, lower case; a file of any name is meant by ``NAME:FILE``.
    """

    suffixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for suffix in self.suffixes:
            _matching(_SUFFIX, suffix, "suffix")


@dataclass(frozen=True)
class CommandDecl(_Declaration):
    """A command of ``bentotool``; ``target`` is a plain typed function whose docstring starts with ``summary``.

    Args:
        name: one word, or a group and a word: ``"deploy"``, ``"plugin list"``.
        panel: heading under which the command is listed in ``bentotool --help``.
    """

    panel: str = "Plugins"

    def _check_name(self) -> None:
        _matching(_COMMAND, self.name, "command name")


@dataclass(frozen=True)
class TemplateDecl:
    """A project template for ``bentotool init``: the folder ``path`` inside the import package ``package``."""

    name: str
    package: str
    path: str
    summary: str

    def __post_init__(self) -> None:
        _matching(_NAME, self.name, "name")
        _matching(_MODULE, self.package, "package")
        _relative_path(self.path, "path")
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            raise ValueError(f"summary {self.summary!r} is not one line of text")


@dataclass(frozen=True)
class SourceFile:
    """One file of a model that is looked at.

    Args:
        path: the file on this disk.
        name: its place inside the model, relative, with forward slashes.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class SourceRequest:
    """What a :class:`Source` is asked for.

    Args:
        uri: as the user wrote it, scheme included; or a path that ends as one of the source's suffixes.
        folder: an empty folder on the store's disk to fetch into; removed after the import.
        max_bytes: the most that may be fetched.
        checksum: ``sha256:<hex>`` that a source of a single file has to have, or None.
        advance: told the bytes of each piece fetched.
        wanted: tells by a file's name whether it is wanted; what a source brings all the same is left out later.
        expect: told how many bytes there will be in all, by a source that comes to know it; for the progress bar.
    """

    uri: str
    folder: Path
    max_bytes: int
    checksum: str | None
    advance: Callable[[int], None]
    wanted: Callable[[str], bool] = field(default=lambda name: True)
    expect: Callable[[int], None] = field(default=lambda total: None)


@dataclass(frozen=True)
class SourceModel:
    """What a :class:`Source` brings: files, and what the place says of the model. The user's own words come first.

    Args:
        files: in the request's folder, or where they lie on this disk.
        name: a name for the model, made valid by the caller.
        version: the version to store it under; None derives it from the content.
        framework: the framework to ask about the files, where a plugin for it is installed.
        labels: labels of the model.
        metadata: facts about the model.
        shared: the files lie in a cache that nothing rewrites, so the store may share them instead of copying.
    """

    files: tuple[SourceFile, ...]
    name: str
    version: str | None = None
    framework: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    shared: bool = False


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Args:
        name: as the model calls it.
        dtype: numpy's name (``float32``, ``int64``, ``str``), or a description of a value that is no tensor.
        shape: one entry for each axis: its length, its symbol, or None where nothing is said.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] = ()


@dataclass(frozen=True)
class Match:
    """A framework's claim on some files.

    Args:
        framework: name of the framework.
        format: name of the format, e.g. ``onnx``, ``skops``.
        confidence: above 0, at most 1; the highest claim wins, equal claims are an error that names them.
        main_file: name of the file (:attr:`SourceFile.name`) that a loader is given; empty for the folder itself.
    """

    framework: str
    format: str
    confidence: float
    main_file: str = ""

    def __post_init__(self) -> None:
        _matching(_NAME, self.framework, "framework")
        if not isinstance(self.confidence, int | float) or not 0 < self.confidence <= 1:
            raise ValueError(f"confidence {self.confidence!r} is not above 0 and at most 1")
        if self.main_file:
            _relative_path(self.main_file, "main_file")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    Args:
        metadata: facts a JSON document can hold.
        requirements: what loading needs, as PEP 508 requirements.
        safety: see :data:`Safety`.
        main_file: see :class:`Match`.
    """

    framework: str
    format: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    safety: Safety = "data"
    main_file: str = ""

    def __post_init__(self) -> None:
        _matching(_NAME, self.framework, "framework")
        _tuple_of(TensorSpec, self.inputs, "inputs")
        _tuple_of(TensorSpec, self.outputs, "outputs")
        _tuple_of(str, self.requirements, "requirements")
        if self.safety not in SAFETY_CLASSES:
            raise ValueError(f"safety {self.safety!r} is not one of {', '.join(SAFETY_CLASSES)}")
        if self.main_file:
            _relative_path(self.main_file, "main_file")


@dataclass(frozen=True)
class PlanAddition:
    """What a plugin adds to a Bento.

    Args:
        files: content by path relative to the project (as if they lay there).
        requirements: PEP 508 requirements.
        env: environment variables of the service.
        labels: labels of the Bento.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _tuple_of(str, self.requirements, "requirements")
        for what, table in (("env", self.env), ("labels", self.labels)):
            if not all(isinstance(k, str) and k and isinstance(v, str) for k, v in table.items()):
                raise ValueError(f"{what} is not a mapping of text to text")
        for path, content in self.files.items():
            _relative_path(path, "file")
            if not isinstance(content, bytes):
                raise ValueError(f"content of {path!r} is not bytes")


@dataclass(frozen=True)
class Credentials:
    """How to log in to a registry; secrets never show in ``repr``.

    Args:
        username, password: for basic authentication, or to fetch a token with.
        identity_token: an OAuth2 refresh token, used in place of the two.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.identity_token and not (self.username and self.password):
            raise ValueError("credentials have neither user name and password nor an identity token")
