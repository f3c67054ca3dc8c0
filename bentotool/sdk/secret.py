"""Text that is shown nowhere."""

from __future__ import annotations

from typing import Any

from bentotool.sdk.wording import kind_of

__all__ = ["MASK", "Secret"]

MASK = "**********"
"""What stands for a secret wherever it would be shown; pydantic's ``SecretStr`` shows the same."""

_SCHEMA = {"type": "string", "format": "password", "writeOnly": True}


class Secret:
    """A text that ``str``, ``repr``, formatting and pickling do not give away; :meth:`get_secret_value` does.

    The type of an argument whose value is never recorded in a Bento. It has the interface of pydantic's ``SecretStr``,
    and is understood inside pydantic's models as well.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a secret is a str, not {kind_of(value)}")
        self._value = value

    def get_secret_value(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK if self._value else ''!r})"

    def __str__(self) -> str:
        return MASK if self._value else ""

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        def take(value: object) -> Secret:
            if not isinstance(value, (str, Secret)):
                raise ValueError("a secret is text")
            return Secret(value) if isinstance(value, str) else value

        # A core schema is a plain table; its makers are in a package that is imported nowhere else.
        shown = {"type": "function-plain", "function": str}
        return {"type": "function-plain", "function": {"type": "no-info", "function": take}, "serialization": shown}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return dict(_SCHEMA)
