"""Names in registries, read as Docker reads them (distribution/reference grammar)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bentotool.errors import BentotoolError, UsageError
from bentotool.oci.digest import check_digest

__all__ = ["DOCKER_HUB", "RemoteReference", "hub_hint"]

DOCKER_HUB = "docker.io"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_MAX_PORT = 65535
_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.ASCII)


@dataclass(frozen=True)
class RemoteReference:
    """``registry/repository[:tag][@digest]``; ``registry`` includes its port."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> RemoteReference:
        """Read a reference; ``iris`` alone means ``docker.io/library/iris``.

        The first part is a host when it has a dot, a colon or upper-case letters, or is ``localhost``.

        Raises:
            UsageError: when a part is not valid.
        """
        rest, at, digest = text.removeprefix("oci://").partition("@")
        first, slash, tail = rest.partition("/")
        is_host = bool(slash) and (first == "localhost" or bool(set(first) & set(".:[")) or first != first.lower())
        registry, path = (first, tail) if is_host else (DOCKER_HUB, rest)
        path, colon, tag = path.partition(":")
        if registry in (DOCKER_HUB, "index.docker.io", "registry-1.docker.io"):
            registry, path = DOCKER_HUB, path if "/" in path else f"library/{path}"
        hint = "expected HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]"
        port = registry.rpartition(":")[2]
        if not _HOST.fullmatch(registry) or (port.isdigit() and int(port) > _MAX_PORT):
            raise UsageError(f"{text!r}: {registry!r} is not a registry host", hint=hint)
        if len(path) > 255 or not all(_PART.fullmatch(part) for part in path.split("/")):
            raise UsageError(f"{text!r}: {path!r} is not a repository name", hint=hint)
        if colon and not _TAG.fullmatch(tag):
            raise UsageError(f"{text!r}: {tag!r} is not a tag", hint=hint)
        try:
            checked = check_digest(digest) if at else None
        except BentotoolError as error:
            raise UsageError(f"{text!r}: {error.message}", hint=hint) from None
        return cls(registry, path, tag or None, checked)

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where plain HTTP is allowed without a flag."""
        return bool(_LOOPBACK.fullmatch(self.registry))

    def with_tag(self, tag: str) -> RemoteReference:
        """The same repository under another tag."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: str) -> RemoteReference:
        """The same repository, one manifest."""
        return replace(self, tag=None, digest=check_digest(digest))

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def hub_hint(registry: str, hint: str) -> str:
    """A hint for a failure at a registry; at Docker Hub the host may just have been forgotten."""
    if registry != DOCKER_HUB:
        return hint
    return f"{hint}; a name without a host is one of Docker Hub, elsewhere write HOST/REPOSITORY"
