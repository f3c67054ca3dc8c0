"""``bentotool quickstart``: the whole path once, with a small real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bentotool.cli.formats import count
from bentotool.cli.state import State, current

__all__ = ["quickstart"]

STEPS = 5
QUESTION = {"measurements": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
SPECIES = ("setosa", "versicolor", "virginica")
_ANSWER_TIMEOUT_S = 30.0


def quickstart(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the project.")] = Path(
        "bentotool-quickstart"
    ),
) -> None:
    """Make, build, serve and ask a small model"""
    state = current()
    _needs_framework(state, ".onnx")
    _step(state, 1, "project", _make_project(directory))
    model = _import_model(state, directory / "iris.onnx")
    _step(state, 2, "model", f"{model['tag']}, {model['framework']}, {model['size']} bytes")
    bento = _build(state, directory)
    _step(state, 3, "build", f"{bento['tag']}, {count(bento['packages'], 'package')} locked, {bento['digest'][:19]}")
    url, answer = _serve_and_ask(state, bento["tag"])
    named = ", ".join(SPECIES[label] for label in answer)
    _step(state, 5, "answer", f"{json.dumps(answer)}: {named}")
    document = {
        "path": str(directory.absolute()),
        "model": model,
        "bento": bento,
        "request": {"url": f"{url}/classify", "body": QUESTION},
        "response": answer,
    }
    state.console.result(document, lambda: _tell(state, directory, bento["tag"]))


def _step(state: State, number: int, what: str, result: str) -> None:
    state.console.line(f"{number}/{STEPS} {what:<8} {result}")


def _needs_framework(state: State, suffix: str) -> None:
    """Told before anything is made, because everything after the first step depends on it."""
    from bentotool.errors import MissingDependencyError

    if not any(suffix in declared.suffixes for declared in state.plugins.frameworks().values()):
        kind = suffix.lstrip(".")
        raise MissingDependencyError(
            f"bentotool_{kind}", install=f"bentotool-{kind}", purpose=f"no plugin here reads {suffix} files"
        )


def _make_project(directory: Path) -> str:
    """Make the project, or go on with an untouched one of an earlier run."""
    from bentotool.scaffold import DEFAULT_TEMPLATE, available_templates, create_project, is_untouched

    template = available_templates()[DEFAULT_TEMPLATE]
    if is_untouched(template, directory):
        return f"{directory} stands already"
    return f"{count(len(create_project(template, directory)), 'file')} in {directory}"


def _import_model(state: State, path: Path) -> dict[str, Any]:
    from bentotool.models.importing import import_path

    return import_path(state.models, path, name="iris", plugins=state.plugins).to_dict()


def _build(state: State, directory: Path) -> dict[str, Any]:
    from bentotool.build.api import build_bento

    return build_bento(directory, layout=state.layout, plugins=state.plugins, note=state.console.note).to_dict()


def _serve_and_ask(state: State, tag: str) -> tuple[str, list[int]]:
    """Serve the Bento on a free port, ask once, stop."""
    from bentotool.serving import plan_launch, running

    with running(plan_launch(tag, state.layout)) as server:
        _step(state, 4, "serve", f"{tag} on {server.url}")
        return server.url, _ask(f"{server.url}/classify")


def _ask(url: str) -> list[int]:
    """Post the question.

    Raises:
        RemoteError: there is no answer, or not the kind that the template gives.
    """
    import urllib.error
    import urllib.request

    from bentotool.errors import RemoteError

    request = urllib.request.Request(  # noqa: S310 - an address of our own on this machine
        url, json.dumps(QUESTION).encode(), {"Content-Type": "application/json"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_ANSWER_TIMEOUT_S) as response:
            answer = json.load(response)
    except (OSError, ValueError) as error:
        said = error.read(2000).decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        raise RemoteError(f"{url} did not answer: {error}{' ' + said if said else ''}") from error
    if not isinstance(answer, list) or not all(label in range(len(SPECIES)) for label in answer):
        raise RemoteError(f"{url} gave an unexpected answer: {str(answer)[:200]}")
    return answer


def _tell(state: State, directory: Path, tag: str) -> None:
    for line in (
        "",
        "next:",
        f"  cd {directory}",
        "  bentotool serve                  the folder, on http://127.0.0.1:3000",
        f"  bentotool serve {tag}",
        f"  bentotool push {tag} REGISTRY/REPOSITORY:TAG",
    ):
        state.console.line(line)
