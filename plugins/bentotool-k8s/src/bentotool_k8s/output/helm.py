"""A Helm chart: the same objects, with what people change of them in ``values.yaml``.

An object is made under names that stand for expressions, dumped as YAML, and the expressions are put in their place. So
a chart that is installed as it is gives what ``bentotool deploy`` applies. Source: Helm's chart format (``v2``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bentotool.yamltext import as_yaml
from bentotool_k8s.names import MEMBER
from bentotool_k8s.output.kustomize import file_names

__all__ = ["RELEASE", "Chart", "chart"]

RELEASE = "zz-release-zz"
"""The deployment's name in objects for a chart: where it stands, the release's name comes to stand."""

_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
_OWN = ("PORT", "BENTOTOOL_")
_IMAGE = (
    "{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}"
    "{{ else }}:{{ .Values.image.tag }}{{ end }}"
)
_TOO_LONG = """\
{{- /* Kubernetes takes 63 characters for the name of a Service */}}
{{- if gt (len .Release.Name) %d }}
{{- fail "the release's name has more than %d characters: its Services would have names that are too long" }}
{{- end }}
"""


@dataclass(frozen=True)
class Chart:
    """What a chart is made of.

    Args:
        name: of the chart.
        version: of the Bento.
        repository, tag, digest: of the image.
        objects: made for :data:`RELEASE`, without a namespace.
    """

    name: str
    version: str
    repository: str
    tag: str
    digest: str
    objects: Sequence[Mapping[str, Any]]


@dataclass
class _Draft:
    """Values that are moved out of objects, and the expressions that stand in their place."""

    values: dict[str, Any] = field(default_factory=dict)
    expressions: dict[str, str] = field(default_factory=dict)

    def place(self, expression: str) -> str:
        mark = f"zz{len(self.expressions)}zz"
        self.expressions[mark] = expression
        return mark

    def service(self, member: str) -> tuple[dict[str, Any], str]:
        """The values of a Service, and the expression that gives them."""
        return self.values.setdefault("services", {}).setdefault(member, {}), f'(index .Values.services "{member}")'


def chart(made: Chart) -> dict[str, str]:
    """The files of a chart folder."""
    draft = _Draft({"image": {"repository": made.repository, "tag": made.tag, "digest": made.digest}})
    files = {}
    for name, each in zip(file_names(made.objects), made.objects, strict=True):
        item = copy.deepcopy(dict(each))
        _KINDS.get(item["kind"], _plain)(item, draft)
        files[f"templates/{name.replace(f'-{RELEASE}', '')}"] = _rendered(as_yaml([item]), draft)
    longest = max(len(each["metadata"]["name"]) for each in made.objects if each["kind"] == "Service")
    room = min(53, 63 - (longest - len(RELEASE)))
    about = {
        "apiVersion": "v2", "name": made.name, "description": f"Bento {made.name}:{made.version}",
        "type": "application", "version": _version(made.version), "appVersion": made.version,
    }  # fmt: skip
    return {
        "Chart.yaml": as_yaml([about]),
        "values.yaml": as_yaml([draft.values]),
        "templates/check.yaml": _TOO_LONG % (room, room),
        **files,
    }


def _version(bento: str) -> str:
    """A version as Helm takes it (SemVer 2): that of the Bento where it is one, else one that has it inside."""
    if _SEMVER.fullmatch(bento):
        return bento
    return f"0.1.0-bento.{re.sub(r'[^0-9A-Za-z.-]', '-', bento)}"


def _plain(item: dict[str, Any], draft: _Draft) -> None:
    """Nothing of it is for people to change."""


def _deployment(item: dict[str, Any], draft: _Draft) -> None:
    member = item["metadata"]["labels"][MEMBER]
    values, where = draft.service(member)
    spec = item["spec"]
    if "replicas" in spec:
        values["replicas"] = spec["replicas"]
        spec["replicas"] = draft.place(f"{{{{ {where}.replicas }}}}")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    container["image"] = draft.place(_IMAGE)
    values["resources"] = container["resources"]
    container["resources"] = _block(draft, f"{where}.resources", 12)
    own = [each for each in container["env"] if each["name"].startswith(_OWN)]
    values["env"] = [each for each in container["env"] if each not in own]
    container["env"] = [*own, _more(draft, f"{where}.env", 12)]
    for key, indent in (("nodeSelector", 8), ("tolerations", 8)):
        values[key] = pod.pop(key, {} if key == "nodeSelector" else [])
        pod[key] = _block(draft, f"{where}.{key}", indent)
    pod["imagePullSecrets"] = _secrets(pod, draft)


def _secrets(pod: dict[str, Any], draft: _Draft) -> str:
    draft.values["imagePullSecrets"] = pod.pop("imagePullSecrets", [])
    return _block(draft, ".Values.imagePullSecrets", 8)


def _block(draft: _Draft, expression: str, indent: int) -> str:
    """A value that is a whole block."""
    return draft.place(f"{{{{- toYaml {expression} | nindent {indent} }}}}")


def _more(draft: _Draft, expression: str, indent: int) -> str:
    """Items that come after those of a list, if there are any."""
    return draft.place(f"{{{{- with {expression} }}}}{{{{- toYaml . | nindent {indent} }}}}{{{{- end }}}}")


def _autoscaler(item: dict[str, Any], draft: _Draft) -> None:
    _bounds(item, draft, "minReplicas", "maxReplicas")


def _scaled_object(item: dict[str, Any], draft: _Draft) -> None:
    _bounds(item, draft, "minReplicaCount", "maxReplicaCount")


def _bounds(item: dict[str, Any], draft: _Draft, least: str, most: str) -> None:
    values, where = draft.service(item["metadata"]["labels"][MEMBER])
    for key, name in ((least, "minReplicas"), (most, "maxReplicas")):
        values[name] = item["spec"][key]
        item["spec"][key] = draft.place(f"{{{{ {where}.{name} }}}}")


def _service(item: dict[str, Any], draft: _Draft) -> None:
    values, where = draft.service(item["metadata"]["labels"][MEMBER])
    values["serviceType"] = item["spec"]["type"]
    item["spec"]["type"] = draft.place(f"{{{{ {where}.serviceType }}}}")


def _ingress(item: dict[str, Any], draft: _Draft) -> None:
    """One rule for each host that the values name."""
    rules = item["spec"]["rules"]
    draft.values["hosts"] = [rule["host"] for rule in rules]
    host = draft.place("{{ . | quote }}")
    head, tail = draft.place("{{- range .Values.hosts }}"), draft.place("{{- end }}")
    item["spec"]["rules"] = [head, {**rules[0], "host": host}, tail]
    for each in item["spec"].get("tls", ()):
        each["hosts"] = _block(draft, ".Values.hosts", 8)


def _route(item: dict[str, Any], draft: _Draft) -> None:
    if "hostnames" in item["spec"]:
        draft.values["hosts"] = item["spec"]["hostnames"]
        item["spec"]["hostnames"] = _block(draft, ".Values.hosts", 4)


_KINDS: Mapping[str, Callable[[dict[str, Any], _Draft], None]] = {
    "Deployment": _deployment,
    "HorizontalPodAutoscaler": _autoscaler,
    "ScaledObject": _scaled_object,
    "Service": _service,
    "Ingress": _ingress,
    "HTTPRoute": _route,
}


def _rendered(text: str, draft: _Draft) -> str:
    """The YAML with expressions in place of their marks. What looks like one beforehand is written as text."""
    text = text.replace("{{", '{{ "{{" }}')
    for mark, expression in draft.expressions.items():
        if expression.startswith("{{-"):  # a block: what stands before it on its line belongs to it
            text = re.sub(rf"^( *)- {mark}$", lambda _, e=expression: e, text, flags=re.MULTILINE)  # type: ignore[misc]
            text = re.sub(rf" {mark}$", lambda _, e=expression: f" {e}", text, flags=re.MULTILINE)  # type: ignore[misc]
        else:
            text = re.sub(rf"\b{mark}\b", lambda _, e=expression: e, text)  # type: ignore[misc]
    text = text.replace(
        "app.kubernetes.io/managed-by: bentotool", "app.kubernetes.io/managed-by: {{ $.Release.Service }}"
    )
    name = "{{ $.Release.Name }}"  # `.` is something else within a range
    text = re.sub(rf"(?<=[:-] ){RELEASE}$", f'"{name}"', text, flags=re.MULTILINE)  # a release may be named `on`
    return text.replace(RELEASE, name)
