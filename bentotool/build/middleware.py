"""Whether the Bento has the middleware that plugins name: one that is absent keeps the service from starting."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Set

from bentotool.build.requirement_line import normal_name
from bentotool.errors import PluginError

__all__ = ["check_middleware"]

_RUNTIME = "bentotool"


def check_middleware(
    named: Mapping[str, str], files: Set[str], pins: Iterable[str], note: Callable[[str], None]
) -> None:
    """Look for each module among the Bento's files and packages; nothing is imported.

    What is in a locked package is known only where it is installed here too: the lock may be for another platform.

    Args:
        named: plugin by target, ``package.module:attribute``.
        files: names of the Bento's files.
        pins: of the lock, ``name==version``.
        note: told of a module that may be in a package that is not installed here.

    Raises:
        PluginError: the Bento cannot have the module.
    """
    if not named:
        return
    packages = {normal_name(re.split(r"[\[=@ ]", pin)[0]) for pin in pins}
    for target, plugin in named.items():
        module = target.partition(":")[0]
        top = module.partition(".")[0]
        path = module.replace(".", "/")
        places = {f"{source}{path}{ending}" for source in ("", "src/") for ending in (".py", "/__init__.py")}
        if top == _RUNTIME or top in sys.stdlib_module_names or places & files or normal_name(top) in packages:
            continue
        tops = {name: _tops(name) for name in packages}
        if any(top in (found or ()) for found in tops.values()):
            continue
        said = f"plugin {plugin!r} names the middleware {target!r}, and {module!r}"
        if _is_here(top) or None not in tops.values():
            raise PluginError(
                f"{said} is in no file and no package of the Bento",
                hint="a plugin adds files and requirements in bentotool_plan_build; "
                f"bentotool --disable-plugin {plugin} … goes on without it",
            )
        note(f"{said} is in no file of the Bento and in no package that is known here: the Bento may not start")


def _tops(package: str) -> Set[str] | None:
    """The first parts of what a package installs; None where it is not installed here, or does not say."""
    try:
        files = importlib.metadata.distribution(package).files
    except importlib.metadata.PackageNotFoundError:
        return None
    return {file.parts[0].partition(".")[0] for file in files} if files is not None else None


def _is_here(top: str) -> bool:
    """Whether the build's own environment has the module as one place; folders without code of their own are shared."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None
