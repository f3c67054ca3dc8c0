"""A Kustomize base: a file for each object, which overlays patch.

Source of the format: the reference of ``kustomization.yaml`` (``kustomize.config.k8s.io/v1beta1``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.yamltext import as_yaml

__all__ = ["base", "file_names"]


def file_names(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for the file of each object: its kind and its own name."""
    return [f"{each['kind'].lower()}-{each['metadata']['name']}.yaml" for each in objects]


def base(objects: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The files of a base."""
    names = file_names(objects)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    }
    found = {"kustomization.yaml": as_yaml([kustomization])}
    return found | {name: as_yaml([each]) for name, each in zip(names, objects, strict=True)}
