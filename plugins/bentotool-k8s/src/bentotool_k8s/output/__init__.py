"""Objects as files: YAML that people read, a Kustomize base, a Helm chart."""

from __future__ import annotations

from bentotool.yamltext import as_yaml
from bentotool_k8s.output.writing import files_of

__all__ = ["as_yaml", "files_of"]
