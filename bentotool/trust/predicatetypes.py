"""What statements may say: the names of predicates that are in use, and files with one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bentotool.errors import NotFoundError, UsageError, VerificationError
from bentotool.trust.statements import COSIGN_SIGN, MODEL_SIGNING, load_json

__all__ = ["CYCLONEDX", "PREDICATES", "SLSA", "SPDX", "predicate_type", "read_predicate", "short_predicate"]

CYCLONEDX = "https://cyclonedx.org/bom"
SPDX = "https://spdx.dev/Document"
SLSA = "https://slsa.dev/provenance/v1"
PREDICATES = {
    "cyclonedx": CYCLONEDX,
    "spdx": SPDX,
    "slsaprovenance": SLSA,
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
    "openvex": "https://openvex.dev/ns",
    "link": "https://in-toto.io/Link/v1",
    "test-result": "https://in-toto.io/attestation/test-result/v0.1",
    "scai": "https://in-toto.io/attestation/scai/v0.3",
}
"""Short names, as cosign has them where it has any."""
_ALIASES = {"spdxjson": "spdx", "slsaprovenance1": "slsaprovenance", "provenance": "slsaprovenance"}
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,400}", re.ASCII)
_LIMIT = 6 << 20
_OWN = {COSIGN_SIGN: "signature", MODEL_SIGNING: "model files"}


def predicate_type(text: str) -> str:
    """The predicate type that a user means: a short name, or a URI.

    Raises:
        UsageError: it is neither, or one that only ``sign`` makes.
    """
    known = PREDICATES.get(_ALIASES.get(text, text))
    if known is None and not _URI.fullmatch(text):
        raise UsageError(
            f"--type {text[:60]!r} is neither a known name nor a URI", hint=f"one of {', '.join(PREDICATES)}"
        )
    found = known or text
    if found in _OWN:
        raise UsageError(f"--type {found} is a signature, not an attestation", hint="bentotool sign REF")
    return found


def short_predicate(found: str) -> str:
    """A predicate type in a word, where there is one; for tables."""
    names = {uri: name for name, uri in PREDICATES.items()}
    return _OWN.get(found) or names.get(found) or found


def read_predicate(path: Path) -> dict[str, Any]:
    """The predicate in a file: one JSON object.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it cannot be read, or is no predicate.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise NotFoundError(f"predicate {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"predicate {path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT:
        raise UsageError(f"predicate {path} has more than {_LIMIT} bytes, which no bundle holds")
    try:
        found = load_json(data, f"predicate {path}")
    except VerificationError as error:
        raise UsageError(error.message) from None
    if "predicateType" in found and "_type" in found:
        raise UsageError(
            f"{path} is a whole statement, about subjects of its own", hint="give what stands under its 'predicate'"
        )
    return found
