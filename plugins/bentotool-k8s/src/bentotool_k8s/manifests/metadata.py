"""What the makers of manifests are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bentotool.deployspec import DeployService, PublishedImage
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_k8s.names import BENTO, DIGEST, labels_of, selector
from bentotool_k8s.settings import Settings, pairs

__all__ = ["Group", "Member", "Object"]

Object: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Member:
    """One Service of the graph with pods of its own.

    Args:
        service: as it is declared.
        label: what tells it from others of the deployment.
        name: of its objects.
        inside: Services of the graph that run in its pods too, since nothing can start them alone.
        calls: names of the members that it calls.
        entry: it is what is reached from outside.
        alone: it is one of several members, and is told to serve itself alone.
    """

    service: DeployService
    settings: Settings
    label: str
    name: str
    calls: tuple[str, ...] = ()
    inside: tuple[DeployService, ...] = ()
    entry: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Group:
    """A deployment.

    Args:
        members: the entry first.
        account: name of the ServiceAccount.
    """

    bento: DeployBento
    options: DeployOptions
    image: PublishedImage
    namespace: str
    members: Sequence[Member]

    @property
    def values(self) -> Mapping[str, Any]:
        return self.options.values

    @property
    def account(self) -> str:
        return str(self.values["service-account"] or self.options.name)

    def metadata(self, name: str, member: Member | None = None, **more: Any) -> dict[str, Any]:
        """The metadata of an object."""
        own = pairs(self.values["label"], "label")
        labels = labels_of(self.bento, self.options.name, member.label if member else "", own)
        annotations = {**more.pop("annotations", {}), **self.told}
        space = {"namespace": self.namespace} if self.namespace else {}
        return {"name": name, **space, "labels": labels, "annotations": annotations, **more}

    @property
    def told(self) -> dict[str, str]:
        """Annotations that say which Bento it is."""
        return {BENTO: self.bento.tag, **({DIGEST: self.bento.digest} if self.bento.digest else {})}

    def selector(self, member: Member) -> dict[str, str]:
        return selector(self.options.name, member.label)

    def address(self, member: Member) -> str:
        """Where a member answers within the cluster."""
        scheme, usual = ("https", 443) if member.service.tls else ("http", 80)
        port = int(self.values["port"])
        return f"{scheme}://{member.name}{'' if port == usual else f':{port}'}{member.service.path_prefix}"
