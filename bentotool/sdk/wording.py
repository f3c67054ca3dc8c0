"""Words for values in messages."""

from __future__ import annotations

__all__ = ["kind_of"]


def kind_of(value: object) -> str:
    """``a Tensor``, ``an object``: the class of a value, with its article."""
    name = type(value).__qualname__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
