"""Words for values in messages."""

from __future__ import annotations

__all__ = ["kind_of", "text_of"]


def kind_of(value: object) -> str:
    """``a Tensor``, ``an object``: the class of a value, with its article."""
    name = type(value).__qualname__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def text_of(value: object) -> str:
    """As text that can be encoded; empty where it has none."""
    try:
        found = str(value)
        # pairs of surrogates become the characters that they stand for, lone ones are replaced
        return str.encode(found, "utf-16", "surrogatepass").decode("utf-16", "replace")
    except BaseException:
        return ""
