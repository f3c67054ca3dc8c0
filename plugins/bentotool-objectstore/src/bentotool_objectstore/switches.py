"""Switches in the environment."""

from __future__ import annotations

__all__ = ["is_true"]


def is_true(value: str | None) -> bool:
    """Whether a variable is set to what the providers' tools read as yes."""
    return (value or "").strip().lower() in ("1", "true", "yes", "on")
