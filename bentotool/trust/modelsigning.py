"""OpenSSF Model Signing: a statement about the files of a model, made of digests that are known already.

The format is that of *model-signing* 1.x: predicate ``https://model_signing/signature/v1.0``, each file a resource, and
one subject whose digest is over the digests of all files in the order of their paths. So it says of the files what the
signature of the manifest says of the artifact, and ``model_signing verify`` needs the folder and the bundle alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from bentotool.errors import BentotoolError
from bentotool.models.manifest import ModelFile, model_files
from bentotool.oci.descriptor import Manifest
from bentotool.trust.statements import MODEL_SIGNING, Statement, Subject

__all__ = ["SIGNATURE_FILE", "files_digest", "files_digest_of", "files_named", "model_statement"]

SIGNATURE_FILE = "model.sig"
"""Where model-signing looks for the bundle; it is no part of what is signed."""
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore", SIGNATURE_FILE)
_HASH = "sha256"


def _ordered(files: Sequence[ModelFile]) -> list[ModelFile]:
    return sorted(files, key=lambda file: PurePosixPath(file.path))


def files_digest(files: Sequence[ModelFile]) -> str:
    """The digest over all files, 64 hexadecimal digits."""
    return hashlib.sha256(b"".join(bytes.fromhex(file.sha256[7:]) for file in _ordered(files))).hexdigest()


def files_digest_of(manifest: Manifest) -> str:
    """The same of a model's manifest; empty where it does not list its files."""
    try:
        files = model_files(manifest, manifest.annotations.get("io.bentotool.name", ""))
    except BentotoolError:
        return ""
    return files_digest(files)


def model_statement(name: str, files: Sequence[ModelFile]) -> Statement:
    """The statement about a model's files.

    Args:
        name: of the model.
    """
    predicate: Mapping[str, Any] = {
        "serialization": {
            "method": "files",
            "hash_type": _HASH,
            "allow_symlinks": False,
            "ignore_paths": list(_IGNORED),
        },
        "resources": [{"name": file.path, "algorithm": _HASH, "digest": file.sha256[7:]} for file in _ordered(files)],
    }
    return Statement((Subject(name, files_digest(files)),), MODEL_SIGNING, predicate)


def files_named(predicate: Mapping[str, Any]) -> dict[str, str] | None:
    """The files that a statement names: digests by path; None where it is not in the form that we know."""
    try:
        found = {str(each["name"]): f"sha256:{each['digest']}" for each in predicate["resources"]}
        return found if all(each["algorithm"] == _HASH for each in predicate["resources"]) else None
    except (KeyError, TypeError):
        return None
