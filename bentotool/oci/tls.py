"""How a registry's certificate is judged, and which one is shown to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from bentotool.errors import UsageError

__all__ = ["Tls"]


@dataclass(frozen=True)
class Tls:
    """TLS towards one registry.

    Attributes:
        verify: False takes any certificate: whoever sits on the line can read and change what passes.
        ca_file: PEM file of the authorities to trust, in place of the system's.
        client_cert: PEM file of the certificate to show, when the registry asks for one.
        client_key: PEM file of its key, unless it is in the same file.

    Raises:
        UsageError: when a file is absent or not what it should be.
    """

    verify: bool = True
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def __post_init__(self) -> None:
        if self.client_key and not self.client_cert:
            raise UsageError("a client key needs its certificate", hint="give --client-cert too")
        for path in (self.ca_file, self.client_cert, self.client_key):
            if path and not path.is_file():
                raise UsageError(f"{path} is not a file", hint="give a PEM file")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca_file:
                context.load_verify_locations(self.ca_file)
        except (ssl.SSLError, OSError):
            raise UsageError(f"{self.ca_file} holds no certificates in PEM form") from None
        try:
            if self.client_cert:
                context.load_cert_chain(self.client_cert, self.client_key, password="")
        except (ssl.SSLError, OSError):
            raise UsageError(
                f"{self.client_cert} holds no certificate with its key in PEM form, or the key has a password",
                hint="give the key with --client-key, without a password",
            ) from None

    @property
    def verification(self) -> bool | str:
        """As requests takes it: whether to verify, or the file to verify with."""
        return str(self.ca_file) if self.verify and self.ca_file else self.verify

    @property
    def certificate(self) -> str | tuple[str, str] | None:
        """As requests takes it: the file to show, or the pair of it and its key."""
        if self.client_cert and self.client_key:
            return str(self.client_cert), str(self.client_key)
        return str(self.client_cert) if self.client_cert else None
