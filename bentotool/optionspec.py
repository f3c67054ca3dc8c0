"""One option of a deployment target: its flag, its values and what it goes with.

Imports the standard library and errors only, as :mod:`bentotool.targetspec`, which names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bentotool.errors import UsageError
from bentotool.interfaces import JSON, _tuple_of

__all__ = ["OptionKind", "OptionSpec"]

OptionKind: TypeAlias = Literal["text", "integer", "number", "flag"]

_OPTION = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_KINDS = ("text", "integer", "number", "flag")
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class OptionSpec:
    """One option of a target: ``--NAME VALUE`` and ``--set NAME=VALUE``.

    Args:
        name: lower-case words joined by dashes.
        kind: ``text``, ``integer``, ``number`` or ``flag``.
        summary: one line for the help.
        default: the value where none is given; None: the target decides.
        choices: the only values, of a text.
        minimum, maximum: bounds of a number, both allowed.
        repeated: may be given several times; the value is a tuple.
        per_service: may be set for one Service of a graph too: ``--set SERVICE.NAME=VALUE``.
        metavar: what stands for the value in the help.
        pattern: regular expression that the whole of a text matches.
        form: what such texts are, in words, for who typed another; of one with a ``pattern``.
        needs: what it has no effect without: options as ``NAME``, or as ``NAME=VALUE``. Given without them it
            is refused, unless the value is the default.
        place: one of those that say where deployments are. ``bentotool deployment list`` and the like take it, too, of
            a target that is :class:`~bentotool.targetspec.Placed`.
    """

    name: str
    kind: OptionKind
    summary: str
    default: JSON = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    repeated: bool = False
    metavar: str = ""
    per_service: bool = False
    pattern: str = ""
    form: str = ""
    needs: tuple[str, ...] = ()
    place: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _OPTION.fullmatch(self.name):
            raise ValueError(f"option name {self.name!r} is not of the form {_OPTION.pattern}")
        if self.kind not in _KINDS:
            raise ValueError(f"kind {self.kind!r} of option {self.name!r} is not one of {', '.join(_KINDS)}")
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            raise ValueError(f"summary {self.summary!r} of option {self.name!r} is not one line of text")
        _tuple_of(str, self.choices, "choices")
        _tuple_of(str, self.needs, "needs")
        if bool(self.pattern) != bool(self.form) or (self.pattern and self.kind != "text"):
            raise ValueError(f"option {self.name!r} is a text with a pattern and a form, or has neither")

    def parse(self, text: str) -> str | int | float | bool:
        """The value that a user wrote.

        Raises:
            UsageError: it is none of this option's.
        """
        if not text.isprintable():
            raise self._wrong(text, "text without control characters")
        if self.kind == "flag":
            if text.lower() not in _FLAGS:
                raise self._wrong(text, "true or false")
            return _FLAGS[text.lower()]
        if self.kind in ("integer", "number"):
            return self._number(text)
        if self.choices and text not in self.choices:
            raise self._wrong(text, f"one of {', '.join(self.choices)}")
        if self.pattern and not re.fullmatch(self.pattern, text, re.ASCII):
            raise self._wrong(text, self.form)
        return text

    def _number(self, text: str) -> int | float:
        convert: Callable[[str], int | float] = int if self.kind == "integer" else float
        what = "a whole number" if self.kind == "integer" else "a number"
        try:
            value = convert(text)
        except ValueError:
            raise self._wrong(text, what) from None
        if not math.isfinite(value):
            raise self._wrong(text, what)
        if self.minimum is not None and value < self.minimum:
            raise self._wrong(text, f"at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise self._wrong(text, f"at most {self.maximum:g}")
        return value

    def _wrong(self, text: str, wanted: str) -> UsageError:
        value = self.metavar or "|".join(self.choices) or self.kind.upper()
        written = f"--{self.name} or --no-{self.name}" if self.kind == "flag" else f"--{self.name} {value}"
        return UsageError(f"{self.name} {text[:80]!r} is not {wanted}", hint=f"{written}: {self.summary}")
