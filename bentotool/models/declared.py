"""Models that a service names by where they come from: found in the store by their origin, else imported."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from bentotool.errors import BentotoolError, NotFoundError
from bentotool.models.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bentotool.interfaces import JSON
    from bentotool.models.store import ModelStore, StoredModel
    from bentotool.plugins import Plugins

__all__ = ["find_model", "import_declared", "import_hint", "is_origin"]


def is_origin(reference: str) -> bool:
    """Whether a reference, as :func:`bentotool.models.reader.asked_of` writes it, says where a model comes from."""
    return reference.startswith("hf://")


def find_model(store: ModelStore, reference: str) -> StoredModel:
    """The model of a reference: by name, or the newest that came from there.

    Raises:
        NotFoundError: when there is none.
    """
    if not is_origin(reference):
        return store.get(reference)
    for ref in store.list():
        try:
            model = store.get(f"{ref.name}:{ref.tag}")
        except BentotoolError:  # damaged: it is not the one, or is imported again
            continue
        if reference in _origins(model.details.metadata):
            return model
    raise NotFoundError(f"model {reference} is not in the store", hint=import_hint(reference))


def _origins(metadata: Mapping[str, JSON]) -> tuple[str, str]:
    """What was asked for, a branch perhaps, and the same of what that stood for."""
    asked, source = (str(metadata.get(key) or "") for key in ("source_request", "source"))
    choice = asked.partition("?")[1:]
    return asked, "".join((source, *choice))


def _parse(reference: str) -> tuple[str, Choice]:
    address, _, query = reference.partition("?")
    chosen = parse_qs(query)
    return address, Choice(tuple(chosen.get("include", ())), tuple(chosen.get("exclude", ())))


def import_hint(reference: str) -> str:
    """The command that imports it; it takes the place of the same model from elsewhere, which has another origin."""
    address, choice = _parse(reference)
    words = ["bentotool", "model", "import", address]
    words += [word for pattern in choice.include for word in ("--include", pattern)]
    words += [word for pattern in choice.exclude for word in ("--exclude", pattern)]
    return shlex.join([*words, "--replace"])


def import_declared(store: ModelStore, reference: str, plugins: Plugins) -> StoredModel:
    """Import a model from its origin, as ``bentotool model import`` does.

    Raises:
        BentotoolError: what :func:`bentotool.models.sources.fetch` and ``import_fetched`` say.
    """
    from bentotool.models.sources import fetch, import_fetched

    address, choice = _parse(reference)
    with fetch(address, store.layout, plugins, choice=choice) as found:
        # The version is made from the content: what is replaced is the same model, with a note of another origin.
        return import_fetched(store, found, plugins=plugins, replace=True)
