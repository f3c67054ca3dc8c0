"""What a target writes for other tools, in a folder that is all its own."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.deploy.api import check_policies, open_target
from bentotool.deployspec import Writer
from bentotool.errors import BentotoolError, ConflictError, PluginError, UsageError
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.tar import check_entry_names
from bentotool.paths import write_atomic

if TYPE_CHECKING:
    from bentotool.plugins import Plugins
    from bentotool.targetspec import Plan

__all__ = ["check_output", "write_plan"]

_PATH = re.compile(r"[A-Za-z]:|\.|[^:]*[/\\]")  # how a path with a colon begins that is no form before it
_LIST = ".bentotool-files.json"
"""In the folder: what was written, so that the next time nothing of it is left over."""


def check_output(plugins: Plugins, target: str, text: str) -> tuple[str, Path]:
    r"""The form and folder of ``[FORM:]DIR``. A drive as in ``C:\out``, or ``./a:b``, is part of the folder.

    Raises:
        UsageError: the target writes no files, or none of the form; or the place is a file.
        ConflictError: the folder has files that were not written by us.
    """
    writer = _writer(plugins, target)
    forms = list(writer.forms())
    form, colon, rest = text.partition(":")
    if colon and form not in forms and not _PATH.match(text):
        close = difflib.get_close_matches(form, forms, 1)
        meant = f"did you mean {close[0]}:{rest[:80]}?" if close else f"it writes {', '.join(forms)};"
        raise UsageError(
            f"target {target} writes no form {form[:60]!r}", hint=f"{meant} a folder of that name is ./{text[:80]}"
        )
    if not colon or form not in forms:
        form, rest = forms[0], text
    if not rest:
        raise UsageError(f"--output {text[:80]!r} names no folder", hint=f"--output {forms[0]}:DIR")
    folder = Path(rest)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name one that is new, or was written so before")
    if folder.is_dir() and not (folder / _LIST).is_file() and any(folder.iterdir()):
        raise ConflictError(f"{folder} has files in it", hint="name a folder that is new or empty")
    return form, folder


def write_plan(
    layout: Layout, plugins: Plugins, plan: Plan, form: str, folder: Path, *, publish: bool, unbuilt: bool = False
) -> Sequence[str]:
    """Write what a plan would apply; what an earlier call left and is not made any more is removed.

    Args:
        publish: bring the image to its registry first, once nobody has anything against it.
        unbuilt: as for :func:`bentotool.deploy.api.check_policies`.

    Returns:
        The paths of the files below the folder.

    Raises:
        BentotoolError: a policy or plugin refuses the Bento, or as the target says; or the disk refuses.
    """
    check_policies(layout, plugins, plan, unbuilt=unbuilt)
    if publish:
        plugins.call("bentotool_before_deploy", target=plan.target, plan=plan)
    files = _writer(plugins, plan.target).write(plan, form, publish)
    check_entry_names(files)
    try:
        for name in sorted(_listed(folder) - files.keys()):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
            for parent in (folder / name).relative_to(folder).parents:
                with contextlib.suppress(OSError):  # it has other files
                    (folder / parent).rmdir()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / _LIST, json.dumps(sorted(files)).encode())
        for name, text in files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, text.encode())
    except OSError as error:
        raise storage_error(error, folder) from None
    return sorted(files)


def _writer(plugins: Plugins, target: str) -> Writer:
    found = open_target(plugins, target)
    if not isinstance(found, Writer):
        raise UsageError(f"target {target} writes no files", hint="leave --output out; --dry-run prints the plan")
    if not found.forms():
        raise PluginError(f"target {target!r} of its plugin says that it writes files, and none of which form")
    return found


def _listed(folder: Path) -> set[str]:
    """What was written before. The list lies in the open: only plain names below the folder are taken from it."""
    try:
        names = json.loads((folder / _LIST).read_bytes())
        check_entry_names(names)
        return set(names)
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, TypeError, RecursionError, BentotoolError):
        raise ConflictError(f"{folder / _LIST} is damaged", hint=f"remove {folder}") from None
