"""Template arguments of a build or a server: where their values come from, and that no secret is recorded.

Later ones win: the service's defaults, ``args:`` of the configuration, ``--arg-file``, ``--arg``. Whether one is a
secret is known when the service was imported; until then all of them are treated as one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bentotool.build.schema import Parser, Where, check_text, text, wrong_type
from bentotool.build.yamlfile import parse_yaml
from bentotool.errors import ConfigError, NotFoundError, UsageError
from bentotool.sdk.arguments import texts_in
from bentotool.sdk.secret import MASK

__all__ = [
    "ARGUMENT_PATTERN",
    "check_secrets",
    "check_size",
    "check_value",
    "parse_arguments",
    "parse_pairs",
    "read_arguments",
    "without_values",
]

ARGUMENT_PATTERN = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"
_FILE_LIMIT = 1 << 20
_SIZE_LIMIT = 64 << 10
_DEPTH = 32
_SHORT = 6

_name = text(ARGUMENT_PATTERN, "the name of an argument")


def check_value(value: Any, where: Where, *, multiline: bool = True, depth: int = 0) -> Any:
    """A JSON value as it is.

    Raises:
        ConfigError: it is none, a text holds control characters, or it is nested too deep.
    """
    if isinstance(value, str):
        return check_text(value, where, multiline=multiline)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth > _DEPTH:
        raise ConfigError("nested too deep", path=where)
    if isinstance(value, list):
        return [
            check_value(item, (*where, str(index)), multiline=multiline, depth=depth + 1)
            for index, item in enumerate(value)
        ]
    if isinstance(value, Mapping):
        found = {}
        for key, item in value.items():
            place = (*where, str(key)[:80])
            if not isinstance(key, str):
                raise wrong_type(key, place, "text as a key")
            found[check_text(key, place)] = check_value(item, place, multiline=multiline, depth=depth + 1)
        return found
    raise wrong_type(value, where, "text, a number, true or false, a list or a table")


def _arguments(value: object, where: Where, *, multiline: bool = False) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong_type(value, where, "a table of arguments")
    found = {}
    for key, item in value.items():
        place = (*where, str(key)[:80])
        found[_name(key, place)] = check_value(item, place, multiline=multiline)
    return found


parse_arguments: Parser[dict[str, Any]] = Parser(
    _arguments, {"type": "object", "propertyNames": {"pattern": f"^(?:{ARGUMENT_PATTERN})$"}}, "table"
)
"""Parser of ``args``: any JSON values by name."""


def parse_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """The values of ``--arg NAME=VALUE``.

    Raises:
        UsageError: one is of another form.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:  # what stands there may be a secret
            raise UsageError("--arg is not of the form NAME=VALUE", hint="--arg epochs=3")
        found[_name(name, ("--arg",))] = check_text(value, ("--arg", name), multiline=True)
    return found


def read_arguments(file: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a command line gives.

    Args:
        file: path of a YAML or JSON file with a table of arguments, from the working folder.
        given: those of ``--arg``, which win.

    Raises:
        NotFoundError: no such file.
        ConfigError: it does not hold a table of arguments.
    """
    found: dict[str, Any] = {}
    if file is not None:
        try:
            with Path(file).open("rb") as stream:
                content = stream.read(_FILE_LIMIT + 1)
        except OSError as error:
            raise NotFoundError(f"--arg-file {file!r} cannot be read: {error.strerror}") from None
        if len(content) > _FILE_LIMIT:
            raise ConfigError(f"larger than {_FILE_LIMIT} bytes", path=(file,))
        try:
            document = parse_yaml(content.decode("utf-8-sig"), file)
        except UnicodeDecodeError:
            raise ConfigError("not UTF-8 text", path=(file,)) from None
        found = _arguments({} if document is None else document, (file,), multiline=True)
    return found | _arguments(dict(given), ("--arg",), multiline=True)


def check_size(values: Mapping[str, Any]) -> None:
    """Check that the values fit where they have to: the environment of a process holds so much and no more.

    Raises:
        UsageError: they do not.
    """
    if len(json.dumps(dict(values)).encode()) > _SIZE_LIMIT:
        raise UsageError(
            f"the arguments are larger than {_SIZE_LIMIT} bytes",
            hint="put the data into a file of the project, and its name into an argument",
        )


def check_secrets(
    arguments: Iterable[Mapping[str, Any]],
    configured: Mapping[str, Any],
    origin: str,
    project: Path,
    file: str | None,
    files: Sequence[str],
) -> None:
    """Check that no secret argument stands in a file that becomes part of the Bento.

    Args:
        arguments: what the service says of each.
        configured: ``args`` of the configuration, which stands in the file ``origin``.
        file: ``--arg-file``.
        files: the Bento's files, by name in the project.

    Raises:
        ConfigError: one does.
    """
    secrets = [str(argument["name"]) for argument in arguments if argument.get("secret")]
    for name in secrets:
        if name in configured:
            raise ConfigError(
                f"a secret argument stands in {origin}, which is kept with the project",
                path=(origin, "args", name),
                hint=f"give it when it runs: --arg {name}=VALUE, or the environment",
            )
    if not secrets or file is None:
        return
    base, place = os.path.realpath(project), os.path.realpath(file)
    names = [os.path.relpath(place, base)] if place.startswith(base + os.sep) else []
    if any(Path(name).as_posix() in files for name in names) and set(secrets) & set(read_arguments(file, {})):
        raise ConfigError(
            f"{file} holds a secret argument and is among the Bento's files",
            path=("--arg-file",),
            hint=f"exclude: [{Path(names[0]).as_posix()}]",
        )


def without_values(message: str, arguments: Mapping[str, Any]) -> str:
    """A message without the arguments' values, for a service that ended before it said which are secret."""
    for value in texts_in(dict(arguments)):
        if len(value) >= _SHORT:
            message = message.replace(value, MASK)
    return message
