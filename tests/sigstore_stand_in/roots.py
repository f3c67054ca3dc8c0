"""What a client is told of an instance: trusted root, signing configuration, and both in one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cryptography import x509

from sigstore_stand_in.authority import der_of, now, spki
from sigstore_stand_in.fulcio import Fulcio
from sigstore_stand_in.merkle import Log
from sigstore_stand_in.timestamps import Timestamps

_TRUSTED_ROOT = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
_SIGNING_CONFIG = "application/vnd.dev.sigstore.signingconfig.v0.2+json"
_TRUST_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"


def _since() -> dict[str, str]:
    return {"start": (now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _log(log_id: bytes, key: bytes, url: str) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _b64(key), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": _since()},
        "logId": {"keyId": _b64(log_id)},
    }


def _authority(url: str, chain: Sequence[x509.Certificate]) -> dict[str, Any]:
    return {
        "subject": {"organization": "stand-in", "commonName": "stand-in"},
        "uri": url,
        "certChain": {"certificates": [{"rawBytes": _b64(der_of(each))} for each in chain]},
        "validFor": _since(),
    }


def trusted_root(
    url: str, fulcio: Fulcio, ct_id: bytes, logs: Sequence[tuple[Log, str]], timestamps: Timestamps
) -> dict[str, Any]:
    """The keys and certificates that are believed.

    Args:
        logs: of Rekor, each with its address.
    """
    chain = (timestamps.certificate, *timestamps.authority.chain)
    return {
        "mediaType": _TRUSTED_ROOT,
        "tlogs": [_log(log.id, spki(log.key.public_key()), at) for log, at in logs],
        "ctlogs": [_log(ct_id, spki(fulcio.ct_key.public_key()), f"{url}/ct")],
        "certificateAuthorities": [_authority(url, fulcio.authority.chain)],
        "timestampAuthorities": [_authority(f"{url}/api/v1/timestamp", chain)],
    }


def signing_config(url: str, rekor: str, version: int) -> dict[str, Any]:
    """Where to sign.

    Args:
        rekor: the log's address.
        version: of its API.
    """

    def service(at: str, api: int = 1) -> dict[str, Any]:
        return {"url": at, "majorApiVersion": api, "validFor": _since(), "operator": "stand-in"}

    return {
        "mediaType": _SIGNING_CONFIG,
        "caUrls": [service(url)],
        "oidcUrls": [service(url)],
        "rekorTlogUrls": [service(rekor, version)],
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaUrls": [service(f"{url}/api/v1/timestamp")],
        "tsaConfig": {"selector": "ANY"},
    }


def trust_config(root: dict[str, Any], signing: dict[str, Any]) -> dict[str, Any]:
    return {"mediaType": _TRUST_CONFIG, "trustedRoot": root, "signingConfig": signing}
