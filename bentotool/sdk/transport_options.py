"""``ssl`` and ``http.api_keys``: how the service is reached, and who may call it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.errors import ConfigError

__all__ = ["ApiKeys", "TlsOptions", "check_tls_table", "read_api_keys", "read_tls"]


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


_VARIABLE = "BENTOTOOL_SSL_"


def check_tls_table(given: object, service: str) -> tuple[bool, dict[str, Any]]:
    """Whether the service wants TLS, and its checked values; what is missing may come from whoever serves it.

    Raises:
        ConfigError: an unknown key, or a wrong value.
    """
    base = (f"service {service}", "ssl")
    if given is None:
        return False, {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{given!r} is not a table", path=base)
    table = {key: value for key, value in given.items() if value is not None}
    enabled = table.pop("enabled", None)
    for key, value in table.items():
        if key not in _TLS:
            from bentotool.sdk.config import suggest

            raise ConfigError(f"unknown option {key!r}", path=base, hint=suggest(key, ["enabled", *_TLS]))
        if not isinstance(value, _TLS[key]) or isinstance(value, bool):
            raise ConfigError(f"{value!r} is not a {_TLS[key].__name__}", path=(*base, key))
    if table.get("cert_reqs", 0) not in (0, 1, 2):
        raise ConfigError(f"{table['cert_reqs']} is not 0, 1 or 2", path=(*base, "cert_reqs"))
    if enabled is None and table:  # off would be served in the clear, and nobody be told
        hint = 'write "enabled": True, or False'
        raise ConfigError("neither enabled nor disabled", path=(*base, "enabled"), hint=hint)
    if not isinstance(enabled, (bool, type(None))):
        raise ConfigError(f"{enabled!r} is not True or False", path=(*base, "enabled"))
    return bool(enabled), table


def _from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, kind in _TLS.items():
        name = f"{_VARIABLE}{key.upper()}"
        if text := variables.get(name):
            try:
                found[key] = kind(text)
            except ValueError:
                raise ConfigError(f"{name}: {text!r} is not a number") from None
    _check_names(variables)
    return found


def _check_names(variables: Mapping[str, str]) -> None:
    """One that is misspelt would leave TLS off. Others of that prefix are not ours: a cluster sets some for its own."""
    known = [key.upper() for key in _TLS]
    for name in variables:
        rest = name.removeprefix(_VARIABLE) if name.startswith(_VARIABLE) else ""
        if rest and rest not in known and (close := difflib.get_close_matches(rest, known, 1)):
            raise ConfigError(f"there is no {name}", hint=f"did you mean {_VARIABLE}{close[0]}?")


def _option(key: str) -> str:
    variable = f"{_VARIABLE}{key.upper()}"
    unnamed = key in ("keyfile_password", "version")  # the command line takes none
    return variable if unnamed else f"--ssl-{key.replace('_', '-')} ({variable})"


def read_tls(given: object, service: str, variables: Mapping[str, str] | None = None) -> TlsOptions | None:
    """The options, or None where TLS is off: the service does not enable it, and the environment names none of them.

    Args:
        given: the service's ``ssl``.
        variables: the environment, where ``BENTOTOOL_SSL_CERTFILE`` and the like stand above what the service says.

    Raises:
        ConfigError: an unknown key, a wrong value, or something given without what it needs, such as a certificate.
    """
    base = (f"service {service}", "ssl")
    enabled, table = check_tls_table(given, service)
    asked = _from_variables(variables or {})
    if not enabled and not asked:
        return None
    chosen = {**(table if enabled else {}), **asked}
    if "certfile" not in chosen:
        hint = "name it: --ssl-certfile FILE, or BENTOTOOL_SSL_CERTFILE=FILE"
        if enabled:
            raise ConfigError("TLS needs a certificate", path=(*base, "certfile"), hint=hint)
        raise ConfigError(f"TLS needs a certificate, and {_option(next(iter(asked)))} comes without one", hint=hint)
    options = TlsOptions(**{"cert_reqs": 2 if "ca_certs" in chosen else 0, **chosen})
    if options.cert_reqs not in (0, 1, 2):
        raise ConfigError(f"{_option('cert_reqs')}: {options.cert_reqs} is not 0, 1 or 2")
    if options.cert_reqs and options.ca_certs is None:
        raise ConfigError(
            "TLS: certificates of callers are asked for, and nothing says whose are good",
            hint="name who signs them: --ssl-ca-certs FILE, or BENTOTOOL_SSL_CA_CERTS=FILE",
        )
    return options


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
