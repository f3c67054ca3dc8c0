"""Importing a service from a folder, and saying in one line why it cannot be."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from bentotool.errors import BentotoolError, ConfigError, NotFoundError, ServiceLoadError, UsageError
from bentotool.sdk.arguments import check_taken, redacted
from bentotool.sdk.importing import PROBE_VARIABLE
from bentotool.sdk.service import Service

__all__ = ["hiding", "load_service", "place", "users_part"]

_DEFAULT_MODULE = "service"


def place(error: BaseException, folder: Path) -> str:
    """``file:line`` of the innermost frame inside the project, else of the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    for frame in reversed(inside or frames):
        return f"{_relative(Path(frame.filename), folder)}:{frame.lineno}"
    return str(folder)


def users_part(error: BaseException, folder: Path) -> TracebackType | None:
    """The traceback from the first frame inside the project on: how the runtime got there helps nobody."""
    part = error.__traceback__
    while part is not None and not Path(part.tb_frame.f_code.co_filename).is_relative_to(folder):
        part = part.tb_next
    return part or error.__traceback__


def hiding(error: BaseException, folder: Path) -> ServiceLoadError | None:
    """What to say of an error that comes of a file of the project with the name of a module of Python's own."""
    if not isinstance(error, (ImportError, AttributeError)):
        return None
    for name in re.findall(r"'(\w+)", str(error)):
        file = getattr(sys.modules.get(name), "__file__", None)
        if name not in sys.stdlib_module_names or file is None:
            continue
        found = _relative(Path(file), folder)
        if not found.is_absolute() and found.parts[0] in (f"{name}.py", name, "src"):
            return ServiceLoadError(
                f"{found} hides Python's own module {name!r}: {error}", hint=f"give {found} another name"
            )
    return None


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _import(name: str, folder: Path) -> Any:
    try:
        return _imported(name, folder)
    except ServiceLoadError as error:
        cause = error.__cause__
        hidden = hiding(cause, folder) if cause is not None else None
        if hidden is None:
            raise
        raise hidden from cause


def _imported(name: str, folder: Path) -> Any:
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        where = f"{_relative(Path(error.filename or name), folder)}:{error.lineno}"
        raise ServiceLoadError(f"{where}: syntax error: {error.msg}", hint=f"correct {where}") from error
    except ModuleNotFoundError as error:
        if error.name == name or (error.name and name.startswith(error.name + ".")):
            raise ServiceLoadError(
                f"no module {name!r} in {folder}",
                hint=f"write {name.replace('.', '/')}.py, or name the service as module:Class",
            ) from error
        hint = f"install {error.name}, or add it to the Bento's python packages"
        if os.environ.get(PROBE_VARIABLE):  # there it is the environment of the build that lacks it
            hint = f"install {error.name} where you build, or import it under `with bentotool.importing():`"
        raise ServiceLoadError(f"{place(error, folder)}: no module named {error.name!r}", hint=hint) from error
    except BentotoolError as error:
        message = redacted(f"{place(error, folder)}: {error.message}")
        if isinstance(error, UsageError) and not isinstance(error, ConfigError):  # an argument, missing or wrong
            raise UsageError(message, hint=error.hint, details=error.details) from error
        raise ServiceLoadError(message, hint=error.hint, details=error.details) from error
    except (SystemExit, KeyboardInterrupt) as error:
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ServiceLoadError(redacted(f"{place(error, folder)}: exits while it is imported ({what})")) from error
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": ")
        raise ServiceLoadError(redacted(f"{place(error, folder)}: {what}")) from error


def _entry(module: Any, folder: Path) -> Service[Any]:
    """The one service of a module that no other service there depends on."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Service)}
    used = {id(d.on) for value in found.values() for d in value.dependencies.values()}
    entries = [value for key, value in found.items() if key not in used]
    if len(entries) == 1:
        return entries[0]
    name = module.__name__
    if not entries:
        raise ServiceLoadError(f"{name}.py in {folder} declares no service", hint="put @bentotool.service on a class")
    names = ", ".join(f"{name}:{entry.inner.__name__}" for entry in entries)
    raise ServiceLoadError(f"{name}.py declares {len(entries)} services", hint=f"name one of: {names}")


def load_service(folder: Path, target: str | None = None) -> tuple[Service[Any], str]:
    """Import a service; the folder becomes the working directory and the first entry of `sys.path`, its ``src`` next.

    Args:
        folder: the project.
        target: ``module:Class``, ``module``, or None for the one in ``service.py``.

    Returns:
        The service, and its import string ``module:Class``.

    Raises:
        ServiceLoadError: what is wrong, with file and line.
        NotFoundError: the module has nothing of the class's name.
        UsageError: an argument is missing, wrong or unknown.
    """
    folder = folder.resolve()
    os.chdir(folder)
    sources = folder / "src"
    own = [str(folder)] + ([str(sources)] if sources.is_dir() and not (sources / "__init__.py").exists() else [])
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in ("", *own))]
    module_name, _, attribute = (target or _DEFAULT_MODULE).partition(":")
    module = _import(module_name.removesuffix(".py").replace("/", "."), folder)
    check_taken()
    if attribute:
        service = getattr(module, attribute, None)
        if service is None:
            raise NotFoundError(f"{module_name} has no {attribute!r}", hint=_declared(module, attribute))
        if not isinstance(service, Service):
            raise ServiceLoadError(
                f"{module_name}:{attribute} is not a service", hint="put @bentotool.service on the class"
            )
    else:
        service = _entry(module, folder)
    try:
        _ = service.apis
    except BentotoolError as error:
        raise ServiceLoadError(error.message, hint=error.hint, details=error.details) from error
    name = attribute or next(key for key, value in vars(module).items() if value is service)
    return service, f"{module.__name__}:{name}"


def _declared(module: Any, wanted: str) -> str:
    names = [key for key, value in vars(module).items() if isinstance(value, Service)]
    if close := difflib.get_close_matches(wanted, names, 1):
        return f"did you mean {close[0]!r}?"
    return f"declared there: {', '.join(names)}" if names else "put @bentotool.service on a class"
