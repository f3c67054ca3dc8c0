"""As much of ASN.1's DER as certificates' extensions and timestamps need."""

from __future__ import annotations

BOOLEAN, INTEGER, OCTETS, NULL, OID, UTF8 = 0x01, 0x02, 0x04, 0x05, 0x06, 0x0C
TIME, SEQUENCE, SET = 0x18, 0x30, 0x31


def element(tag: int, *contents: bytes) -> bytes:
    """One element of the contents given, one after the other."""
    content = b"".join(contents)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def sequence(*contents: bytes) -> bytes:
    return element(SEQUENCE, *contents)


def set_of(*contents: bytes) -> bytes:
    """A SET OF, whose members DER sorts."""
    return element(SET, *sorted(contents))


def integer(value: int) -> bytes:
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def object_id(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    encoded = bytearray([first * 40 + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        encoded += bytes(reversed(groups))
    return element(OID, bytes(encoded))


def elements(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """What follows one another in ``data``: tag, content, and the element whole."""
    found, at = [], 0
    while at < len(data):
        start, tag, size = at, data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("an element is longer than what holds it")
        found.append((tag, data[at : at + size], data[start : at + size]))
        at += size
    return found
