"""The Model Store as a service's author uses it: ``bentotool.models``.

``BentoModel`` and ``HuggingFaceModel`` work wherever a service runs. The rest needs the whole tool and is imported when
it is used: the runtime inside a Bento carries this file and :mod:`~bentotool.models.reader` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentotool.models.reader import BentoModel, HuggingFaceModel, Model

if TYPE_CHECKING:
    from bentotool.models.api import create, delete, export_model, get, import_model, list

__all__ = ["BentoModel", "HuggingFaceModel", "Model", "create", "delete", "export_model", "get", "import_model", "list"]


def __getattr__(name: str) -> Any:
    if name == "get":  # works inside a Bento too
        from bentotool.models.reader import resolve

        return resolve
    if name in __all__:
        from importlib import import_module

        from bentotool.errors import MissingDependencyError

        try:
            return getattr(import_module("bentotool.models.api"), name)
        except ModuleNotFoundError:
            raise MissingDependencyError(
                "bentotool.models.api", install="bentotool", purpose=f"bentotool.models.{name}"
            ) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
