"""``ssl`` and ``http.api_keys``: how the service is reached, and who may call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bentotool.errors import ConfigError

__all__ = ["ApiKeys", "TlsOptions", "read_api_keys", "read_tls"]


@dataclass(frozen=True)
class TlsOptions:
    """The keys of BentoML's ``ssl``.

    Attributes:
        certfile: the server's certificate and those above it, PEM.
        keyfile: its private key, PEM; None where `certfile` has it.
        keyfile_password: opens the key. Only from the environment: what stands in code is read by many.
        ca_certs: who signs the certificates of callers, PEM.
        cert_reqs: 0 asks callers for no certificate, 1 takes one, 2 demands one (mutual TLS).
        version: of Python's `ssl`; below TLS 1.2 nothing is spoken.
        ciphers: as OpenSSL names them; None for its own choice.
    """

    certfile: str
    keyfile: str | None = None
    keyfile_password: str | None = None
    ca_certs: str | None = None
    cert_reqs: int = 0
    version: int | None = None
    ciphers: str | None = None

    def __repr__(self) -> str:
        return f"TlsOptions(certfile={self.certfile!r}, keyfile={self.keyfile!r}, ca_certs={self.ca_certs!r})"


_TLS = {
    "certfile": str,
    "keyfile": str,
    "keyfile_password": str,
    "ca_certs": str,
    "cert_reqs": int,
    "version": int,
    "ciphers": str,
}


def _tls_table(given: object, base: tuple[str, ...]) -> tuple[bool, dict[str, Any]]:
    """Whether the service wants TLS, and its checked values."""
    if given is None:
        return False, {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{given!r} is not a table", path=base)
    table = {key: value for key, value in given.items() if value is not None}
    enabled = bool(table.pop("enabled", False))
    for key, value in table.items():
        if key not in _TLS:
            from bentotool.sdk.config import suggest

            raise ConfigError(f"unknown option {key!r}", path=base, hint=suggest(key, ["enabled", *_TLS]))
        if not isinstance(value, _TLS[key]) or isinstance(value, bool):
            raise ConfigError(f"{value!r} is not a {_TLS[key].__name__}", path=(*base, key))
    return enabled, table


def _from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, kind in _TLS.items():
        name = f"BENTOTOOL_SSL_{key.upper()}"
        if text := variables.get(name):
            try:
                found[key] = kind(text)
            except ValueError:
                raise ConfigError(f"{name}: {text!r} is not a number") from None
    return found


def read_tls(given: object, service: str, variables: Mapping[str, str] | None = None) -> TlsOptions | None:
    """The options, or None where TLS is off.

    Args:
        given: the service's ``ssl``.
        variables: the environment, where ``BENTOTOOL_SSL_CERTFILE`` and the like stand above what the service says.

    Raises:
        ConfigError: an unknown key, a wrong value, or no certificate.
    """
    base = (f"service {service}", "ssl")
    enabled, table = _tls_table(given, base)
    chosen = {**(table if enabled else {}), **_from_variables(variables or {})}
    if not enabled and "certfile" not in chosen:
        return None
    if "certfile" not in chosen:
        raise ConfigError(
            "TLS needs a certificate", path=(*base, "certfile"), hint="bentotool serve --ssl-certfile FILE"
        )
    options = TlsOptions(**chosen)
    if options.cert_reqs not in (0, 1, 2):
        raise ConfigError(f"{options.cert_reqs} is not 0, 1 or 2", path=(*base, "cert_reqs"))
    if options.cert_reqs and options.ca_certs is None:
        raise ConfigError(
            "certificates of callers are asked for, and nothing says whose are good",
            path=(*base, "ca_certs"),
            hint="bentotool serve --ssl-ca-certs FILE",
        )
    return options if not options.ca_certs or options.cert_reqs else replace(options, cert_reqs=2)


@dataclass(frozen=True)
class ApiKeys:
    """Where the keys that callers show are read from, when the service starts.

    Attributes:
        env: name of an environment variable: keys separated by commas or white space.
        file: a file with one key per line; ``#`` starts a comment.
        header: further header that holds the key alone, beside ``Authorization: Bearer``.
    """

    env: str | None = None
    file: str | None = None
    header: str = "x-api-key"


def read_api_keys(given: object, service: str) -> ApiKeys | None:
    """The options, or None where anybody may call.

    Raises:
        ConfigError: neither a variable nor a file, or a wrong value.
    """
    base = (f"service {service}", "http", "api_keys")
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(value, str) and value for value in given.values()):
        raise ConfigError("keys do not stand in code", path=base, hint='write {"env": "NAME"} or {"file": "PATH"}')
    for key in given:
        if key not in ("env", "file", "header"):
            raise ConfigError(f"unknown option {key!r}", path=base, hint="known options: env, file, header")
    if ("env" in given) == ("file" in given):
        raise ConfigError("one of env and file is needed", path=base, hint='write {"env": "NAME"}')
    header = given.get("header", "x-api-key").lower()
    return ApiKeys(given.get("env"), given.get("file"), header)
