"""The one place that writes a Dockerfile: typed instructions to text, each value checked and quoted.

No value can end a line, add an instruction or be taken apart by a shell. Programs and their arguments are written in
exec form, a JSON array, which no builder expands; values of ``ENV`` and ``LABEL`` in double quotes, with what acts
there escaped; what stands bare has to match a pattern. No directive is written, so nothing is pulled to read the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bentotool.errors import BuildError

__all__ = [
    "Comment", "Copy", "Entrypoint", "Env", "Expose", "From", "Healthcheck", "Instruction", "Label", "Mount", "Run",
    "SearchPath", "StopSignal", "User", "Workdir", "dockerfile_text",
]  # fmt: skip

_STAGE = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9/._-]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_USER = re.compile(r"\d+(:\d+)?", re.ASCII)
_SIGNAL = re.compile(r"SIG[A-Z0-9]+", re.ASCII)
_MOUNT = re.compile(r"[A-Za-z0-9/._-]+", re.ASCII)
_MODE = re.compile(r"0[0-7]{3}", re.ASCII)


class Instruction(Protocol):
    """One instruction; ``line()`` is its text, on one line."""

    def line(self) -> str: ...


@dataclass(frozen=True)
class Comment:
    """A line for people; never the first of a file, where it could be read as a directive."""

    text: str

    def line(self) -> str:
        return f"# {_printable(self.text, 'a comment')}"


@dataclass(frozen=True)
class From:
    """The start of a stage.

    Args:
        image: reference of an image, or the name of an earlier stage or build context.
    """

    image: str
    stage: str

    def line(self) -> str:
        return f"FROM {_bare(_IMAGE, self.image, 'base image')} AS {_bare(_STAGE, self.stage, 'stage')}"


@dataclass(frozen=True)
class Mount:
    """A mount of ``RUN``: ``cache``, ``secret`` or ``bind``.

    Args:
        options: beside the type, such as ``target``.
    """

    kind: str
    options: Mapping[str, str]

    def flag(self) -> str:
        pairs = [("type", self.kind), *self.options.items()]
        return "--mount=" + ",".join(f"{_bare(_NAME, k, 'mount')}={_bare(_MOUNT, v, 'mount')}" for k, v in pairs)


@dataclass(frozen=True)
class Run:
    """A program that is run, with no shell but one that the arguments name; or a script of this package's own.

    Args:
        arguments: program and arguments; with a script its ``$1`` and so on.
        script: text for ``/bin/sh``, never made from a value; it may have several lines.
        network: whether it may use one.
        known_as: ``$0`` of the script, for what it depends on beside its arguments.
    """

    arguments: Sequence[str] = ()
    mounts: Sequence[Mount] = ()
    network: bool = True
    script: str = ""
    known_as: str = ""

    def line(self) -> str:
        flags = [mount.flag() for mount in self.mounts] + ([] if self.network else ["--network=none"])
        return " ".join(["RUN", *flags, _exec(self.arguments, self.script, self.known_as)])


@dataclass(frozen=True)
class Copy:
    """Files of the build context, or of another stage or context.

    Args:
        link: as a layer of its own, which does not depend on those below.
        mode: of the files, such as ``0755``.
    """

    source: str
    target: str
    origin: str = ""
    link: bool = False
    mode: str = ""

    def line(self) -> str:
        flags = ["--link"] if self.link else []
        flags += [f"--from={_bare(_STAGE, self.origin, 'stage')}"] if self.origin else []
        flags += [f"--chmod={_bare(_MODE, self.mode, 'mode')}"] if self.mode else []
        paths = [_bare(_PATH, path, "path") for path in (self.source, self.target)]
        return " ".join(["COPY", *flags, _exec(paths)])


@dataclass(frozen=True)
class Env:
    """Environment variables, for the steps that follow and for the image."""

    values: Mapping[str, str]

    def line(self) -> str:
        return "ENV " + " ".join(f"{_bare(_NAME, k, 'variable')}={_quoted(v)}" for k, v in self.values.items())


@dataclass(frozen=True)
class SearchPath:
    """A folder put before those of ``PATH``."""

    folder: str

    def line(self) -> str:
        return f'ENV PATH="{_bare(_PATH, self.folder, "path")}:$PATH"'


@dataclass(frozen=True)
class Label:
    """Labels of the image."""

    values: Mapping[str, str]

    def line(self) -> str:
        return "LABEL " + " ".join(f"{_quoted(k)}={_quoted(v)}" for k, v in self.values.items())


@dataclass(frozen=True)
class User:
    """Who runs what follows: numbers, since no base has an account for it."""

    number: str

    def line(self) -> str:
        return f"USER {_bare(_USER, self.number, 'user')}"


@dataclass(frozen=True)
class Workdir:
    path: str

    def line(self) -> str:
        return f"WORKDIR {_bare(_PATH, self.path, 'path')}"


@dataclass(frozen=True)
class Expose:
    port: int

    def line(self) -> str:
        return f"EXPOSE {int(self.port)}/tcp"


@dataclass(frozen=True)
class StopSignal:
    name: str

    def line(self) -> str:
        return f"STOPSIGNAL {_bare(_SIGNAL, self.name, 'signal')}"


@dataclass(frozen=True)
class Entrypoint:
    arguments: Sequence[str]

    def line(self) -> str:
        return f"ENTRYPOINT {_exec(self.arguments)}"


@dataclass(frozen=True)
class Healthcheck:
    """A program whose exit status says whether the service is well; times in seconds."""

    arguments: Sequence[str]
    times: Mapping[str, int] = field(
        default_factory=lambda: {"interval": 10, "timeout": 5, "start-period": 60}  # as in the oci builder's config
    )
    retries: int = 3

    def line(self) -> str:
        flags = [f"--{name}={int(seconds)}s" for name, seconds in self.times.items()]
        return " ".join(["HEALTHCHECK", *flags, f"--retries={int(self.retries)}", "CMD", _exec(self.arguments)])


def dockerfile_text(instructions: Sequence[Instruction]) -> str:
    """The Dockerfile.

    Raises:
        BuildError: a value that cannot stand where it would.
    """
    lines = ["# Made by bentotool; a change is lost when it is made again."]
    for instruction in instructions:
        line = instruction.line()
        if isinstance(instruction, (Comment, From)) and not lines[-1].startswith("# "):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _printable(value: str, what: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise BuildError(
            f"{what} {str(value)[:80]!r} has characters that no Dockerfile can hold", hint="correct it and build again"
        )
    return value


def _bare(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(_printable(value, what)):
        raise BuildError(f"{value[:80]!r} is no {what} that a Dockerfile can name", hint="correct it and build again")
    return value


def _quoted(value: str) -> str:
    text = _printable(value, "the value")
    return '"' + "".join(f"\\{each}" if each in '\\"$' else each for each in text) + '"'


def _exec(arguments: Sequence[str], script: str = "", known_as: str = "") -> str:
    """Exec form. ``<`` is escaped, too: builders look for here-documents before they see the JSON.

    The lines of a script stand on lines of their own, for people. Those that a builder would drop, as it puts continued
    lines together, are left out: empty ones and comments.
    """
    checked = [_printable(each, "the argument") for each in arguments]
    whole = [*((f"bentotool{'-' if known_as else ''}{known_as}",) if script else ()), *checked]
    if not whole or isinstance(arguments, str):
        raise BuildError("an instruction without a program", hint="report this")
    words = json.dumps(whole).replace("<", "\\u003c")
    if not script:
        return words
    lines = [each for each in script.splitlines() if each.strip() and not each.lstrip().startswith("#")]
    text = "\\n\\\n".join(json.dumps(each)[1:-1] for each in lines).replace("<", "\\u003c")
    return f'["/bin/sh", "-c", "\\\n{text}", {words[1:]}'
