"""What the objects of a deployment are called, and the labels that find them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from bentotool.targetspec import DeployBento

__all__ = ["BENTO", "DEPLOYMENT", "DIGEST", "MEMBER", "labels_of", "member_names", "object_name", "selector"]

DEPLOYMENT = "bentotool.io/deployment"
"""Label of all that is made for a deployment: its name."""
MEMBER = "bentotool.io/service"
"""Label: which Service of the graph it is."""
BENTO = "bentotool.io/bento"
"""Annotation: the Bento's tag."""
DIGEST = "bentotool.io/digest"
"""Annotation: the Bento's digest."""

_LONGEST = 63  # of a label's value and of a Service's name (RFC 1123 label)
_MARK = 6


def _slug(text: str, longest: int) -> str:
    """A DNS label of a name, of which few characters count; cut ones get a mark of the whole."""
    plain = re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9]+", "-", _words(text).lower())).strip("-") or "s"
    if len(plain) <= longest:
        return plain
    return f"{plain[: longest - _MARK - 1].rstrip('-')}-{_mark(text)}"


def _words(text: str) -> str:
    """``TextScorer`` as ``Text-Scorer``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text)


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_MARK]


def member_names(services: Sequence[str]) -> dict[str, str]:
    """A DNS label for each Service of a graph; of two that would have the same, both get a mark."""
    plain = {name: _slug(name, _LONGEST) for name in services}
    twice = {label for label in plain.values() if list(plain.values()).count(label) > 1}
    return {
        name: f"{label[: _LONGEST - _MARK - 1].rstrip('-')}-{_mark(name)}" if label in twice else label
        for name, label in plain.items()
    }


def object_name(deployment: str, member: str = "") -> str:
    """The name of a Service's objects: that of the deployment for the entry, which has no ``member``."""
    if not member:
        return deployment
    whole = f"{deployment}-{member}"
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - _MARK - 1].rstrip('-')}-{_mark(whole)}"


def selector(deployment: str, member: str) -> dict[str, str]:
    """The labels that find the pods of a Service."""
    return {DEPLOYMENT: deployment, MEMBER: member}


def labels_of(
    bento: DeployBento, deployment: str, member: str = "", more: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The labels of an object: ours last, so that nobody's takes their place."""
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", bento.version)[:_LONGEST].strip("-_.")
    common = {
        "app.kubernetes.io/name": _slug(bento.name, _LONGEST),
        "app.kubernetes.io/instance": deployment,
        **({"app.kubernetes.io/component": member} if member else {}),
        **({"app.kubernetes.io/version": version} if version else {}),
        "app.kubernetes.io/managed-by": "bentotool",
    }
    return {**(more or {}), **common, DEPLOYMENT: deployment, **({MEMBER: member} if member else {})}
