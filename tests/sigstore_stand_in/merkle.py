"""A log that can only be added to, with proofs of what is in it (RFC 6962)."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sigstore_stand_in.authority import spki


@dataclass(frozen=True)
class Included:
    """Where an entry is.

    Attributes:
        path: digests that lead from the entry to the root.
        checkpoint: a signed note of size and root.
    """

    index: int
    size: int
    root: bytes
    path: tuple[bytes, ...]
    checkpoint: str


class Log:
    """Starts with one entry: some clients refuse the index 0.

    Args:
        origin: first line of its checkpoints; the first word of it signs.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = hashlib.sha256(spki(self.key.public_key())).digest()
        self._leaves = [hashlib.sha256(b"\0genesis").digest()]
        self._lock = threading.Lock()

    def add(self, body: bytes) -> Included:
        with self._lock:
            self._leaves.append(hashlib.sha256(b"\0" + body).digest())
            leaves = list(self._leaves)
        index, root = len(leaves) - 1, _root(leaves)
        return Included(index, len(leaves), root, tuple(_path(index, leaves)), self._checkpoint(len(leaves), root))

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def _checkpoint(self, size: int, root: bytes) -> str:
        note = f"{self.origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        signature = base64.b64encode(self.id[:4] + self.sign(note.encode())).decode()
        return f"{note}\n\u2014 {self.origin.split()[0]} {signature}\n"


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    at = _split(len(leaves))
    return hashlib.sha256(b"\1" + _root(leaves[:at]) + _root(leaves[at:])).digest()


def _path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    at = _split(len(leaves))
    if index < at:
        return [*_path(index, leaves[:at]), _root(leaves[at:])]
    return [*_path(index - at, leaves[at:]), _root(leaves[:at])]
