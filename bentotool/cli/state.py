"""What a command shares with the frame: the store, the plugins, the console."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.cli.console import Console
from bentotool.cli.options import GlobalOptions

if TYPE_CHECKING:
    from bentotool.models.store import ModelStore
    from bentotool.oci.layout import Layout
    from bentotool.plugins import Plugins

__all__ = ["State", "current", "use"]


class State:
    """One invocation. Everything costly is made on first use.

    Args:
        options: filled in while the arguments are parsed, so read it only from within a command.
    """

    def __init__(self, options: GlobalOptions) -> None:
        self.options = options
        self.console = Console(options)
        self.interrupt_hint: str | None = None  # what whoever interrupts it now may type next

    @property
    def json(self) -> bool:
        return self.options.json

    @property
    def quiet(self) -> bool:
        return self.options.quiet

    @property
    def verbose(self) -> int:
        return self.options.verbose

    @property
    def color(self) -> bool:
        return self.console.color

    @cached_property
    def store(self) -> Path:
        """The store's folder: ``--store``, else ``BENTOTOOL_STORE``, else the platform's user data folder."""
        if self.options.store is not None:
            return self.options.store.expanduser().absolute()
        from bentotool.paths import default_store

        return default_store()

    @cached_property
    def layout(self) -> Layout:
        """The store's layout; a folder that does not exist yet is an empty store.

        Raises:
            UsageError: the path, or one above it, is something else than a folder.
        """
        from bentotool.errors import UsageError
        from bentotool.oci.layout import Layout

        standing = next((path for path in (self.store, *self.store.parents) if os.path.lexists(path)), self.store)
        if os.path.lexists(standing) and not standing.is_dir():
            raise UsageError(f"store {self.store}: {standing} is not a folder", hint="name a folder with --store")
        return Layout(self.store)

    @cached_property
    def models(self) -> ModelStore:
        from bentotool.models.store import ModelStore

        return ModelStore(self.layout)

    @cached_property
    def plugins(self) -> Plugins:
        from bentotool.plugins import load_plugins

        def warn(line: str) -> None:
            self.console.note(f"warning: {line}")

        return load_plugins(disabled=self.options.disable_plugin, warn=warn)

    def check_disabled(self) -> None:
        """Warn of a ``--disable-plugin`` that leaves nothing out: a mistyped name would pass unseen."""
        if not self.options.disable_plugin:
            return
        from bentotool.plugin_scan import scan

        installed = sorted({plugin.name for plugin in scan()})
        for name in dict.fromkeys(self.options.disable_plugin):
            if name not in installed:
                self.console.note(
                    f"warning: no plugin {name!r} to disable; installed: {', '.join(installed) or 'none'}"
                )


_current: ContextVar[State] = ContextVar("bentotool_cli_state")


def current() -> State:
    """The state of the command that is running."""
    return _current.get()


@contextmanager
def use(state: State) -> Iterator[State]:
    """Make ``state`` the current one, for the frame and for tests of a single command."""
    token = _current.set(state)
    try:
        yield state
    finally:
        _current.reset(token)
