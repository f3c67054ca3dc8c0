"""Who says no to a model that runs code when it is loaded, and in which words.

Standard library and errors only: this file travels in the embedded runtime.
"""

from __future__ import annotations

from bentotool.errors import UnsafeError

__all__ = ["require_trust", "trust_reasons"]

_MAX_REASONS = 3  # why a model runs code; more fill the line and tell nothing new
_REASON_LENGTH = 120
_PICKLED = "it is a pickle"  # the reason that plugins give for a bare pickle
_GIVEN = "--trust (trust=True) takes it"


def require_trust(
    safety: object,
    title: str,
    *,
    trust: object,
    instead: object = None,
    reasons: object = (),
    format: str = "pickle",
    how: str = _GIVEN,
) -> None:
    """Refuse a model that runs code when it is loaded, unless the user said that its origin is trusted.

    Args:
        instead: what the framework advises in place of trust.
        reasons: why loading it runs code, as the framework tells; a few are named.
        format: the model's format; only a pickle is called one.
        how: how trust is said here.

    Raises:
        UnsafeError: it is of class ``pickle``, and ``trust`` is not ``True`` itself.
    """
    if safety == "pickle" and trust is not True:
        better = instead if isinstance(instead, str) else "a data format is better"
        known = trust_reasons(reasons)
        told = "; ".join([reason for reason in known if reason != _PICKLED][:_MAX_REASONS])
        if told:
            what = f"{'is a pickle and ' if format == 'pickle' else ''}runs code when it is loaded: {told}"
        elif known or "pickle" in format:
            what = "is a pickle: loading it runs whatever code its author put in"
        else:
            what = "runs code when it is loaded"
        raise UnsafeError(f"{title} {what}", hint=f"{how}, if you trust where it comes from; {better}")


def trust_reasons(value: object) -> list[str]:
    """What a plugin wrote under ``needs_trust``; it quotes the model, so it is cut and kept to one printable line."""
    if not isinstance(value, list | tuple):
        return []
    texts = (
        " ".join("".join(c if c.isprintable() else " " for c in text).split())
        for text in value
        if isinstance(text, str)
    )
    return [text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…" for text in texts if text]
