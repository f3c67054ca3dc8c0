"""Rekor, both versions: what is signed is logged, and the log's word for it comes back."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sigstore_stand_in.merkle import Log

_HASHES = {"PKIX_ECDSA_P256_SHA_256": "SHA2_256", "PKIX_ECDSA_P384_SHA_384": "SHA2_384"}


def canonical(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def entry_v1(log: Log, proposed: Mapping[str, Any], seconds: int) -> tuple[str, dict[str, Any]]:
    """Log an entry.

    Args:
        seconds: of the epoch, which the log promises.

    Returns:
        the entry's id, and the answer.
    """
    body = canonical(_logged(proposed))
    included = log.add(body)
    promised = {
        "body": _b64(body),
        "integratedTime": seconds,
        "logID": log.id.hex(),
        "logIndex": included.index,
    }
    proof = {
        "checkpoint": included.checkpoint,
        "hashes": [each.hex() for each in included.path],
        "logIndex": included.index,
        "rootHash": included.root.hex(),
        "treeSize": included.size,
    }
    name = f"{1:016x}{hashlib.sha256(bytes(1) + body).hexdigest()}"
    promise = _b64(log.sign(canonical(promised)))
    return name, {name: {**promised, "verification": {"inclusionProof": proof, "signedEntryTimestamp": promise}}}


def entry_v2(log: Log, request: Mapping[str, Any]) -> dict[str, Any]:
    """Log an entry; the log tells no time."""
    wanted = request.get("hashedRekordRequestV002") or request["hashed_rekord_request_v002"]
    data = {"algorithm": _HASHES[wanted["signature"]["verifier"]["keyDetails"]], "digest": wanted["digest"]}
    spec = {"hashedRekordV002": {"data": data, "signature": wanted["signature"]}}
    body = canonical({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec})
    included = log.add(body)
    return {
        "logIndex": str(included.index),
        "logId": {"keyId": _b64(log.id)},
        "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
        "canonicalizedBody": _b64(body),
        "inclusionProof": {
            "logIndex": str(included.index),
            "rootHash": _b64(included.root),
            "treeSize": str(included.size),
            "hashes": [_b64(each) for each in included.path],
            "checkpoint": {"envelope": included.checkpoint},
        },
    }


def _logged(proposed: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a proposed entry: of an envelope, its digests and signatures."""
    if proposed["kind"] == "hashedrekord":
        return dict(proposed)
    if proposed["kind"] != "dsse":
        raise ValueError(f"entries of the kind {proposed['kind']} are not known here")
    content = proposed["spec"]["proposedContent"]
    envelope = json.loads(content["envelope"])
    spec = {
        "envelopeHash": _digest(content["envelope"].encode()),
        "payloadHash": _digest(base64.b64decode(envelope["payload"])),
        "signatures": [
            {"signature": each["sig"], "verifier": content["verifiers"][0]} for each in envelope["signatures"]
        ],
    }
    return {"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}


def _digest(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
