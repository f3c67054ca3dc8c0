"""YAML that every reader takes for the same: keys in the order in which they were made, no references.

Readers differ in what they take for a number, a boolean or a time: ``1e5``, ``0o17``, ``083912``, ``1_000``, ``1:30``,
``y`` and ``on`` are strings to some and none to others. So a string stands without quotes only where it looks like
none of these to anybody. Sources: YAML 1.1 (its type repository), YAML 1.2 (core schema), the resolvers of PyYAML and
go-yaml.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["as_yaml"]

_SAFE = re.compile(r"(?:-{1,2}|/)?[A-Za-z].*|/", re.ASCII | re.DOTALL)
_QUANTITY = re.compile(r"[1-9][0-9]{0,9}(?:m|s|[KMGT]i)", re.ASCII)
_RESERVED = frozenset({"y", "yes", "n", "no", "t", "f", "true", "false", "on", "off", "null", "nil", "none", "inf",
                       "infinity", "nan"})  # fmt: skip


def _plain(text: str) -> bool:
    """Whether a string may go without quotes; what else may make it need them is known to the library."""
    if _QUANTITY.fullmatch(text):
        return True
    return bool(_SAFE.fullmatch(text)) and text.lstrip("-/").lower() not in _RESERVED


@functools.cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Without anchors, and with lists as people indent them."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

        def represent_text(self, data: str) -> yaml.Node:
            style = None if _plain(data) else "'"
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, Dumper.represent_text)
    return Dumper


def as_yaml(documents: Iterable[Mapping[str, Any]], *, width: int = 110) -> str:
    """Documents one after another, as ``kubectl apply -f`` takes them.

    Args:
        width: columns after which long text goes on in the next line.
    """
    import yaml

    made = [dict(each) for each in documents]
    return str(yaml.dump_all(made, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=width))
