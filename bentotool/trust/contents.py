"""What a Bento consists of, as bills of materials and provenance name it: packages, models, runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlsplit

from bentotool.build.bentos import BentoModelRef, BentoStore, StoredBento
from bentotool.build.media import LOCK, WHEEL
from bentotool.errors import NotFoundError, VerificationError
from bentotool.models.manifest import ModelFile
from bentotool.models.store import ModelStore

__all__ = ["Contents", "ModelPart", "Package", "contents_of", "read_packages"]

_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[\w.,-]+\])?(?:==([^\s;\\]+)| @ ([^\s;\\]+))", re.ASCII)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})", re.ASCII)
_COMMIT = re.compile(r"# commit: (\S+) ([0-9a-f]{40,64})", re.ASCII)
_URL = re.compile(r"https?://[!#-;=?-\[\]_a-z~]{1,4000}", re.ASCII)
_WHEEL_VERSION = re.compile(r"[^/]+?-([^-/]+)-[^/]*\.whl", re.ASCII)


@dataclass(frozen=True)
class Package:
    """A distribution that the lock names.

    Args:
        name: normalised.
        version: empty where the lock names an address that does not say it.
        hashes: sha256 of each file that may be installed, hexadecimal, sorted.
        url: where it comes from, where the lock says so; without query.
        commit: of the git repository it was built from.
        file: name of the wheel, where the Bento carries it.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    url: str = ""
    commit: str = ""
    file: str = ""

    @property
    def purl(self) -> str:
        """Its package URL (purl-spec, type ``pypi``)."""
        version = f"@{quote(self.version, safe='')}" if self.version else ""
        origin = f"?download_url={quote(self.url, safe=':/')}" if self.url else ""
        return f"pkg:pypi/{self.name}{version}{origin}"


@dataclass(frozen=True)
class ModelPart:
    """A model that the Bento names.

    Args:
        digest: of its manifest.
        signature: ``{"inputs": [{"name", "dtype", "shape"}], "outputs": [...]}`` as far as it is known.
        files: none where the model itself is not in the store.
    """

    name: str
    version: str
    digest: str
    framework: str = ""
    format: str = ""
    safety: str = ""
    signature: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    files: tuple[ModelFile, ...] = ()

    @property
    def purl(self) -> str:
        """Its package URL (purl-spec, type ``oci``)."""
        return _oci_purl(self.name, self.digest)


@dataclass(frozen=True)
class Contents:
    """A Bento, and all that is known to be in it.

    Args:
        arguments: template arguments that it was built with, but for secrets.
    """

    name: str
    version: str
    digest: str
    service: str
    python: str
    platform: str
    description: str
    labels: Mapping[str, str]
    lock_digest: str
    runtime_version: str
    runtime_digest: str
    packages: tuple[Package, ...]
    models: tuple[ModelPart, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def purl(self) -> str:
        """Its package URL (purl-spec, type ``oci``)."""
        return _oci_purl(self.name, self.digest)

    @property
    def runtime_purl(self) -> str:
        """Package URL of the embedded runtime, which no index has."""
        return f"pkg:generic/bentotool-runtime@{quote(self.runtime_version, safe='')}"


def contents_of(store: BentoStore, bento: StoredBento) -> Contents:
    """Read what a Bento consists of.

    Raises:
        NotFoundError, VerificationError: when its lock is missing or damaged.
    """
    runtime = bento.config.get("runtime")
    version = runtime.get("version") if isinstance(runtime, Mapping) else ""
    carried = {layer.digest[7:]: name for name, layer in bento.wheels.items()}
    packages = (
        replace(package, file=next((carried[each] for each in package.hashes if each in carried), ""))
        for package in read_packages(_lock_of(store, bento))
    )
    models: dict[str, ModelPart] = {}
    for model in bento.models:  # one may stand under several aliases
        models.setdefault(model.digest, _model(ModelStore(store.layout), model))
    return Contents(
        # its own name and version, not those it is known by here: they must not change the documents
        _own(bento, "name"),
        _own(bento, "version"),
        bento.digest,
        bento.service,
        bento.python,
        bento.platform,
        bento.description,
        dict(bento.labels),
        bento.layer(LOCK).digest,
        version if isinstance(version, str) else "",
        bento.layer(WHEEL).digest,
        tuple(packages),
        tuple(sorted(models.values(), key=lambda part: (part.name, part.digest))),
        _arguments(bento.config.get("arguments")),
    )


def read_packages(lock: str) -> tuple[Package, ...]:
    """The packages of a lock, by name; see :mod:`bentotool.build.lock` for the form."""
    commits, found = dict[str, str](), dict[tuple[str, str, str], set[str]]()
    hashes: set[str] = set()
    for line in lock.splitlines():
        if line.startswith("#"):
            if commit := _COMMIT.match(line):
                commits[commit[1]] = commit[2]
            continue
        if pin := _PIN.match(line):
            url = _bare(pin[3]) if pin[3] else ""
            version = pin[2] or _version_of(url)
            name = re.sub(r"[-_.]+", "-", pin[1]).lower()
            hashes = found.setdefault((name, version, url), set())
        hashes.update(_HASH.findall(line))
    return tuple(
        Package(name, version, tuple(sorted(every)), url, commits.get(name, ""))
        for (name, version, url), every in sorted(found.items())
    )


def _lock_of(store: BentoStore, bento: StoredBento) -> str:
    try:
        return store.requirements(bento)
    except UnicodeDecodeError:
        raise VerificationError(f"the lock of Bento {bento.tag} is no text", hint="build or pull it again") from None


def _own(bento: StoredBento, key: str) -> str:
    value = bento.config.get(key)
    return value if isinstance(value, str) else str(getattr(bento, key))


def _arguments(listed: object) -> dict[str, Any]:
    """Values by name; only of those that are said to be no secret."""
    items = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    return {str(item.get("name")): item["value"] for item in items if item.get("secret") is False and "value" in item}


def _version_of(url: str) -> str:
    named = _WHEEL_VERSION.fullmatch(url.rpartition("/")[2])
    return named[1].replace("%2B", "+") if named else ""


def _bare(url: str) -> str:
    """An address without what may be a secret: user, password, query and fragment; empty where it is none."""
    if not _URL.fullmatch(url):
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _oci_purl(name: str, digest: str) -> str:
    return f"pkg:oci/{quote(name.lower(), safe='')}@{quote(digest, safe=':')}"


def _model(store: ModelStore, named: BentoModelRef) -> ModelPart:
    part = ModelPart(named.name, named.version, named.digest, named.framework, safety=named.safety)
    try:
        model = store.by_digest(named.name, named.digest)
    except NotFoundError:  # a Bento may be here without its models
        return part
    details = model.details
    return replace(
        part,
        framework=details.framework,
        format=details.format,
        safety=details.safety,
        signature=json.loads(json.dumps(dict(details.signature))),
        labels={str(key): str(value) for key, value in details.labels.items()},
        files=model.files,
    )
