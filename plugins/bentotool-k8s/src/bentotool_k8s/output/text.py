"""YAML in one form: keys in the order in which they were made, nothing written as a reference to something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

__all__ = ["as_yaml"]


class _Plain(yaml.SafeDumper):
    """A dumper without anchors, and with lists as people indent them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def as_yaml(documents: Iterable[Mapping[str, Any]]) -> str:
    """Documents one after another, as ``kubectl apply -f`` takes them."""
    return str(
        yaml.dump_all([dict(each) for each in documents], Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    )
