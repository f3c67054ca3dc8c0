"""``bentotool plugin``: see what is installed."""

from __future__ import annotations

from dataclasses import asdict

from bentotool.cli.state import current


def list_plugins() -> None:
    """List the installed plugins and their state"""
    state = current()
    state.plugins.check()
    states = state.plugins.states()

    def human() -> None:
        if not states:
            state.console.note("no plugins are installed; for ONNX models: pip install bentotool-onnx")
            return
        rows = [
            (item.name, item.distribution, item.version, item.state, _hooks(item.hooks), item.problem or "")
            for item in states
        ]
        state.console.table(("NAME", "DISTRIBUTION", "VERSION", "STATE", "HOOKS", "PROBLEM"), rows)

    state.console.result([asdict(item) for item in states], human)


def _hooks(names: tuple[str, ...]) -> str:
    return ", ".join(name.removeprefix("bentotool_") for name in names)
