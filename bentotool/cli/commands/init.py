"""``bentotool init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bentotool.cli.formats import count
from bentotool.cli.state import State, current
from bentotool.errors import NotFoundError

__all__ = ["init"]


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the new project.")] = Path("."),
    template: Annotated[str, typer.Option("--template", "-t", metavar="T", help="Which template.")] = "quickstart",
    list_only: Annotated[bool, typer.Option("--list", help="List the templates and stop.")] = False,
) -> None:
    """Make a new project that builds and serves at once"""
    from bentotool.scaffold import available_templates, create_project

    state = current()
    templates = available_templates(state.plugins.templates())
    if list_only:
        rows = [(item.name, item.summary) for item in templates.values()]
        document = [{"name": name, "summary": summary} for name, summary in rows]
        state.console.result(document, lambda: state.console.table(("name", "summary"), rows))
        return
    if template not in templates:
        raise NotFoundError(f"no template {template!r}", hint=f"one of: {', '.join(templates)}")
    files = create_project(templates[template], directory)
    document_of = {
        "template": template,
        "path": str(directory.absolute()),
        "files": [name.as_posix() for name in files],
    }
    state.console.result(document_of, lambda: _tell(state, directory, files))


def _tell(state: State, directory: Path, files: list[Path]) -> None:
    state.console.line(f"made {count(len(files), 'file')} in {directory.absolute()}")
    state.console.line()
    state.console.line("next:")
    if directory.absolute() != Path.cwd():
        state.console.line(f"  cd {directory}")
    for model in files:
        if model.suffix == ".onnx":
            state.console.line(f"  bentotool model import {model.name} --name {model.stem}")
    state.console.line("  bentotool serve")
    state.console.line("  bentotool build")
