"""NaCl's secretbox (XSalsa20 and Poly1305), for the few hundred bytes of a key file.

cosign encrypts its private keys with it, and the ``cryptography`` library has no Salsa20. By D. J. Bernstein, *The
Salsa20 family of stream ciphers* and *Extending the Salsa20 nonce*. It is plain Python: nothing for more than a key.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence

__all__ = ["NONCE", "TAG", "open_box", "seal_box"]

NONCE = 24  # bytes
TAG = 16
_MASK = 0xFFFFFFFF
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")


def _quarter(words: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, one, other, bits in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
        total = (words[one] + words[other]) & _MASK
        words[target] ^= ((total << bits) | (total >> (32 - bits))) & _MASK


_COLUMNS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11))
_ROWS = ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))


def _state(key: bytes, middle: bytes) -> list[int]:
    keys, inside = struct.unpack("<8I", key), struct.unpack("<4I", middle)
    return [_SIGMA[0], *keys[:4], _SIGMA[1], *inside, _SIGMA[2], *keys[4:], _SIGMA[3]]


def _rounds(start: Sequence[int]) -> list[int]:
    words = list(start)
    for _ in range(10):
        for quarter in (*_COLUMNS, *_ROWS):
            _quarter(words, *quarter)
    return words


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    words = _rounds(_state(key, nonce))
    return struct.pack("<8I", *(words[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def _stream(key: bytes, nonce: bytes, length: int) -> bytes:
    inner, blocks = _hsalsa20(key, nonce[:16]), []
    for counter in range(-(-length // 64)):
        start = _state(inner, nonce[16:] + struct.pack("<Q", counter))
        words = _rounds(start)
        blocks.append(struct.pack("<16I", *((one + other) & _MASK for one, other in zip(start, words, strict=True))))
    return b"".join(blocks)[:length]


def _poly1305(key: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    return Poly1305.generate_tag(key, data)


def seal_box(key: bytes, nonce: bytes, message: bytes) -> bytes:
    """Encrypt and authenticate: the tag, then the ciphertext.

    Args:
        key: 32 bytes.
        nonce: 24 bytes, never used twice with a key.
    """
    stream = _stream(key, nonce, 32 + len(message))
    sealed = bytes(one ^ other for one, other in zip(message, stream[32:], strict=True))
    return _poly1305(stream[:32], sealed) + sealed


def open_box(key: bytes, nonce: bytes, box: bytes) -> bytes | None:
    """What :func:`seal_box` was given; None where the key is another, or the box was changed."""
    if len(box) < TAG or len(nonce) != NONCE or len(key) != 32:
        return None
    tag, sealed = box[:TAG], box[TAG:]
    stream = _stream(key, nonce, 32 + len(sealed))
    if not hmac.compare_digest(_poly1305(stream[:32], sealed), tag):
        return None
    return bytes(one ^ other for one, other in zip(sealed, stream[32:], strict=True))
