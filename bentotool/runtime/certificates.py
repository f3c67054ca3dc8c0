"""When a certificate ends. Python's `ssl` tells it of the certificates of others only, once a connection stands."""

from __future__ import annotations

import ssl
from calendar import timegm
from datetime import datetime

__all__ = ["expiry"]

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_BEGIN = "-----BEGIN CERTIFICATE-----"


def expiry(pem: str) -> float | None:
    """The last moment of the first certificate in a PEM text, in seconds since 1970; None where it cannot be read.

    The fields are those of RFC 5280, section 4.1: version, serial number, algorithm, issuer, validity.
    """
    try:
        begin = pem.index(_BEGIN)
        end = pem.index("-----END CERTIFICATE-----", begin)
        der = ssl.PEM_cert_to_DER_cert(pem[begin : end + 25])
        _, certificate, _ = _element(der)
        _, body, _ = _element(certificate)
        kind, _, rest = _element(body)
        for _ in range(3 if kind == _VERSION else 2):
            _, _, rest = _element(rest)
        kind, validity, _ = _element(rest)
        if kind != _SEQUENCE:
            return None
        _, _, rest = _element(validity)
        kind, text, _ = _element(rest)
        if kind not in (_UTC_TIME, _GENERALIZED_TIME):
            return None
        form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
        return float(timegm(datetime.strptime(text.decode("ascii"), form).timetuple()))  # noqa: DTZ007 - Z is UTC
    except (ValueError, IndexError):
        return None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER: its tag, its content, and what follows."""
    length, begin = data[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[2:begin], "big")
    if begin + length > len(data):
        raise ValueError("the element is longer than the data")
    return data[0], data[begin : begin + length], data[begin + length :]
