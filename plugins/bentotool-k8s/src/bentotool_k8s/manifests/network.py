"""How a deployment is reached: Services, Ingress or HTTPRoute, NetworkPolicies.

Sources: ``networking.k8s.io/v1``; Gateway API's reference of ``HTTPRoute`` (``gateway.networking.k8s.io/v1``).
"""

from __future__ import annotations

import re

from bentotool.errors import UsageError
from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.manifests.pods import PORT, PORT_NAME
from bentotool_k8s.settings import pairs

__all__ = ["outside", "outside_url", "policies", "service"]

_HOST = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_PATH = re.compile(r"/[A-Za-z0-9_.~/-]*")
_GATEWAY = re.compile(r"(?:(?P<space>[a-z0-9-]+)/)?(?P<name>[a-z0-9.-]+)(?::(?P<section>[a-z0-9.-]+))?")
_SPACE = "kubernetes.io/metadata.name"
"""Label that the cluster gives each namespace: its name."""


def service(group: Group, member: Member) -> Object:
    """The Kubernetes Service of a Service: a name and an address for its pods."""
    values = group.values
    kind = values["service-type"] if member.entry else "ClusterIP"
    annotations = pairs(values["service-annotation"], "service-annotation") if member.entry else {}
    port = {
        "name": "https" if member.service.tls else "http", "port": int(values["port"]), "targetPort": PORT_NAME,
        "protocol": "TCP", "appProtocol": "https" if member.service.tls else "http",
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": group.metadata(member.name, member, annotations=annotations),
        "spec": {"type": kind, "selector": group.selector(member), "ports": [port]},
    }


def _path(group: Group) -> str:
    path = str(group.values["path"] or group.members[0].service.path_prefix or "/")
    if not _PATH.fullmatch(path):
        raise UsageError(f"--path {path[:80]!r} is no path", hint="--path /iris")
    return path


def _hosts(group: Group) -> list[str]:
    for host in group.values["host"]:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise UsageError(f"--host {host[:80]!r} is no name of a host", hint="--host iris.example.com")
    return list(group.values["host"])


def outside_url(group: Group) -> str:
    """Where the entry answers: at its first host, else within the cluster."""
    hosts, values = _hosts(group), group.values
    if not hosts:
        space = f".{group.namespace}" if group.namespace else ""
        scheme, _, rest = group.address(group.members[0]).partition("://")
        name, colon, port = rest.partition("/")[0].partition(":")
        return f"{scheme}://{name}{space}{colon}{port}"
    return f"{'https' if values['tls-secret'] else 'http'}://{hosts[0]}{_path(group).rstrip('/')}"


def outside(group: Group) -> list[Object]:
    """An Ingress, or an HTTPRoute at a Gateway; nothing where no host is named."""
    values, hosts = group.values, _hosts(group)
    if values["gateway"]:
        return [_route(group, hosts)]
    if not hosts:
        if given := [name for name in ("ingress-class", "ingress-annotation", "tls-secret", "path") if values[name]]:
            raise UsageError(f"--{given[0]} without a host to be reached at", hint="--host iris.example.com")
        return []
    entry = group.members[0]
    backend = {"service": {"name": entry.name, "port": {"name": "https" if entry.service.tls else "http"}}}
    rule = {"http": {"paths": [{"path": _path(group), "pathType": "Prefix", "backend": backend}]}}
    tls = [{"hosts": hosts, "secretName": values["tls-secret"]}]
    annotations = pairs(values["ingress-annotation"], "ingress-annotation")
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": group.metadata(group.options.name, entry, annotations=annotations),
            "spec": {
                **({"ingressClassName": values["ingress-class"]} if values["ingress-class"] else {}),
                **({"tls": tls} if values["tls-secret"] else {}),
                "rules": [{"host": host, **rule} for host in hosts],
            },
        }
    ]


def _route(group: Group, hosts: list[str]) -> Object:
    values, entry = group.values, group.members[0]
    if given := [name for name in ("ingress-class", "ingress-annotation", "tls-secret") if values[name]]:
        raise UsageError(
            f"--{given[0]} is one of an Ingress, and --gateway asks for an HTTPRoute", hint="leave one out"
        )
    found = _GATEWAY.fullmatch(str(values["gateway"]))
    if found is None:
        raise UsageError(f"--gateway {str(values['gateway'])[:80]!r} is no Gateway", hint="--gateway NAMESPACE/NAME")
    parent = {
        "group": "gateway.networking.k8s.io", "kind": "Gateway",
        **({"namespace": found["space"]} if found["space"] else {}), "name": found["name"],
        **({"sectionName": found["section"]} if found["section"] else {}),
    }  # fmt: skip
    backend = {"group": "", "kind": "Service", "name": entry.name, "port": int(values["port"]), "weight": 1}
    match = {"path": {"type": "PathPrefix", "value": _path(group)}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": group.metadata(group.options.name, entry),
        "spec": {
            "parentRefs": [parent],
            **({"hostnames": hosts} if hosts else {}),
            "rules": [{"matches": [match], "backendRefs": [backend]}],
        },
    }


def policies(group: Group) -> list[Object]:
    """Who may reach which pods. What nodes themselves ask, as probes do, every cluster lets through."""
    if not group.values["network-policy"]:
        return []
    return [_policy(group, member) for member in group.members]


def _policy(group: Group, member: Member) -> Object:
    port = [{"port": PORT, "protocol": "TCP"}]
    callers = [each for each in group.members if member.name in each.calls]
    sources: list[Object] = [{"podSelector": {"matchLabels": group.selector(each)}} for each in callers]
    sources += [_space(name) for name in group.values["metrics-from"]]
    anybody = member.entry and not group.values["allow-from"]
    if member.entry:
        sources += [_space(name) for name in group.values["allow-from"]]
    rule = {"ports": port} if anybody else {"from": sources, "ports": port}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": group.metadata(member.name, member),
        "spec": {
            "podSelector": {"matchLabels": group.selector(member)},
            "policyTypes": ["Ingress"],
            "ingress": [rule] if anybody or sources else [],
        },
    }


def _space(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {_SPACE: name}}}
