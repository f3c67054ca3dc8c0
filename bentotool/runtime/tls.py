"""The certificate of a server and what belongs to it, read and checked before anything is loaded."""

from __future__ import annotations

import logging
import os
import ssl
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from bentotool.errors import ConfigError, UsageError
from bentotool.runtime.certificates import expiry
from bentotool.sdk.service import Service
from bentotool.sdk.transport_options import TlsOptions, read_tls

__all__ = ["check_tls", "tls_context", "tls_of"]

_PASSWORD = "BENTOTOOL_SSL_KEYFILE_PASSWORD"  # noqa: S105 - the name of a variable
_OPTIONS = {"certfile": "--ssl-certfile", "keyfile": "--ssl-keyfile", "ca_certs": "--ssl-ca-certs"}
_LARGEST = 4 << 20
"""Bytes of a file of certificates; a system's bundle of all authorities has a quarter of a MiB."""

_log = logging.getLogger("bentotool.service")


def tls_of(service: Service[object], variables: Mapping[str, str] = os.environ) -> TlsOptions | None:
    """What the service and, above it, the environment say of TLS; None where it is off.

    Raises:
        UsageError: TLS is asked for by something, and something else that it needs is missing or wrong.
    """
    try:
        return read_tls(service.config.options.get("ssl"), service.name, variables)
    except ConfigError as error:  # of whoever starts the server, and no fault of the service's code
        raise UsageError(error.message, hint=error.hint) from error


def check_tls(service: Service[object]) -> None:
    """Say what is wrong before anything is loaded.

    Raises:
        UsageError: as :func:`tls_of` and :func:`tls_context`.
    """
    options = tls_of(service)
    if options is not None:
        tls_context(options)
        _warn_of_expiry(options)


def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """A context for a server.

    Raises:
        UsageError: a file cannot be read, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _look_at_files(options)
    try:
        # without the function OpenSSL would ask on the terminal for the password of a locked key
        context.load_cert_chain(options.certfile, options.keyfile, options.keyfile_password or (lambda: ""))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; a password may be too long, or no text
        raise _unloaded(options, error) from error
    if options.ca_certs is not None:
        try:
            context.load_verify_locations(options.ca_certs)
        except OSError as error:
            raise UsageError(
                f"TLS: {options.ca_certs}: {_said(error)}", hint="--ssl-ca-certs is a PEM file of certificates"
            ) from error
    context.verify_mode = ssl.VerifyMode(options.cert_reqs)
    if options.ciphers:
        try:
            context.set_ciphers(options.ciphers)
        except (OSError, ValueError) as error:
            message = f"TLS: ciphers {options.ciphers!r}: {_said(error)}"
            raise UsageError(message, hint="openssl ciphers -v lists what there is") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _look_at_files(options: TlsOptions) -> None:
    """Hold each file against what it is to be: `ssl` does not say which one is wrong."""
    chain = _read(options.certfile, "certfile")
    if "CERTIFICATE-----" not in chain:
        swapped = "PRIVATE KEY-----" in chain and options.keyfile is not None
        raise _not_pem(options.certfile, "certificate", "certfile", swapped=swapped)
    key = chain if options.keyfile is None else _read(options.keyfile, "keyfile")
    if "PRIVATE KEY-----" not in key:
        if options.keyfile is None:
            message = f"TLS: no private key: {options.certfile} holds the certificate alone"
            raise UsageError(message, hint="name the key: --ssl-keyfile FILE, or BENTOTOOL_SSL_KEYFILE=FILE")
        raise _not_pem(options.keyfile, "private key", "keyfile")
    if options.ca_certs is not None and "CERTIFICATE-----" not in _read(options.ca_certs, "ca_certs"):
        raise _not_pem(options.ca_certs, "certificate", "ca_certs")


def _read(name: str, key: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # a pipe could be read once, and each worker reads it
            raise UsageError(f"TLS: {name} is no file", hint=f"{_OPTIONS[key]} is a PEM file")
        with Path(name).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        variable = f"BENTOTOOL_SSL_{key.upper()}"
        hint = f"name a PEM file that this user may read: {_OPTIONS[key]} FILE, or {variable}=FILE"
        raise UsageError(f"TLS: {name}: {_said(error)}", hint=hint) from error
    if len(data) > _LARGEST:
        raise UsageError(f"TLS: {name} is larger than {_LARGEST >> 20} MiB", hint=f"{_OPTIONS[key]} is a PEM file")
    return data.decode("latin-1")


def _not_pem(name: str, what: str, key: str, *, swapped: bool = False) -> UsageError:
    hint = (
        f"{_OPTIONS[key]} is a PEM file, with a line -----BEGIN {'' if key != 'keyfile' else '… '}{what.upper()}-----"
    )
    if swapped:
        hint = "it holds a key: --ssl-certfile and --ssl-keyfile may have changed places"
    return UsageError(f"TLS: {name} holds no {what} in PEM form", hint=hint)


def _unloaded(options: TlsOptions, error: Exception) -> UsageError:
    """Why a certificate and its key, both of them there, are not taken."""
    key = options.keyfile or options.certfile
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return UsageError(
            f"TLS: the private key {key} does not belong to the certificate {options.certfile}",
            hint="take the key that it was made for; the server's own certificate stands first in its file",
        )
    if "ENCRYPTED" in _read(key, "keyfile" if options.keyfile else "certfile"):
        if not options.keyfile_password:
            return UsageError(f"TLS: the private key {key} is locked", hint=f"set {_PASSWORD} in the environment")
        return UsageError(f"TLS: the password does not open the private key {key}", hint=f"correct {_PASSWORD}")
    what = f"{options.certfile}{f' with {options.keyfile}' if options.keyfile else ''}"
    hint = "one of them is damaged, or weaker than OpenSSL takes; openssl x509 -text -in FILE shows a certificate"
    return UsageError(f"TLS: {what}: {_said(error)}", hint=hint)


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (getattr(error, "reason", None) or str((error.args or ("?",))[-1])).replace("_", " ").lower().rstrip(".")
    return (getattr(error, "strerror", None) or str(error)).lower()


def _warn_of_expiry(options: TlsOptions) -> None:
    if (ended := expiry(_read(options.certfile, "certfile"))) and ended < time.time():
        day = time.strftime("%Y-%m-%d", time.gmtime(ended))
        _log.warning("the certificate %s has expired on %s: callers will refuse it", options.certfile, day)
