"""Where trust begins: the file of an instance, or what the public instance publishes by TUF."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import ConfigError, RemoteError, UsageError
from bentotool_sigstore.limits import timeout, within

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot

__all__ = ["client_config", "public_config", "trusted_root"]

_LIMIT = 8 << 20
_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig"
_ROOT = "application/vnd.dev.sigstore.trustedroot"
_HINT_VERIFYING = "--offline takes the roots that are here; --trust-config FILE those of a file"
_HINT_SIGNING = "--key FILE signs without them; --trust-config FILE names the services of another instance"
_HINT = "the operator of the instance gives it out: a ClientTrustConfig, or for verifying a trusted_root.json"


def client_config(path: Path) -> ClientTrustConfig:
    """Roots and services of a file.

    Raises:
        ConfigError: it has none.
        UsageError: it has roots alone.
    """
    from sigstore.models import ClientTrustConfig

    document = _read(path)
    if _kind(document).startswith(_ROOT):
        raise UsageError(
            f"{path} has roots of trust, and no services to sign with",
            hint="a ClientTrustConfig has both: trustedRoot and signingConfig",
        )
    try:
        found = ClientTrustConfig.from_json(json.dumps(document))
        found.trusted_root.get_fulcio_certs()
    except Exception as error:  # the library's and its parsers', of many kinds
        raise _wrong(path, error) from error
    return found


def trusted_root(path: Path) -> TrustedRoot:
    """The roots of a file: a ``ClientTrustConfig``, or the trusted root alone.

    Raises:
        ConfigError: it has none.
    """
    from sigstore.models import ClientTrustConfig, TrustedRoot

    document = _read(path)
    try:
        if not _kind(document).startswith(_ROOT):
            found = ClientTrustConfig.from_json(json.dumps(document)).trusted_root
        else:
            found = TrustedRoot.from_file(str(path))
        found.get_fulcio_certs()
    except Exception as error:  # as above
        raise _wrong(path, error) from error
    return found


def public_config(*, offline: bool, verifying: bool) -> ClientTrustConfig:
    """Roots and services of the public instance.

    Args:
        verifying: what they are for, else for signing.
        offline: take what was fetched last, or else what came with the library.

    Raises:
        RemoteError: they cannot be brought up to date.
        ConfigError: there is no place for them, or nothing in it.
    """
    from sigstore.errors import TUFError
    from sigstore.models import ClientTrustConfig

    def load(_: threading.Event) -> ClientTrustConfig:
        return ClientTrustConfig.production(offline=offline)

    hint = _HINT_VERIFYING if verifying else _HINT_SIGNING
    try:
        return within(timeout() * 2, "the TUF repository of Sigstore", load, hint=hint)
    except TUFError as error:
        raise RemoteError(
            f"Sigstore's roots of trust could not be brought up to date: {_reason(error)}", hint=hint
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Sigstore's roots of trust cannot be kept here or are damaged: {_line(error)}",
            hint="--trust-config FILE takes them from a file",
        ) from error


def _reason(error: BaseException) -> str:
    """What the deepest of the errors that led to this one says."""
    for _ in range(10):
        error = error.__cause__ or error.__context__ or error
    return _line(error)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}", hint=_HINT) from error
    try:
        if len(data) > _LIMIT:
            raise ValueError(f"more than {_LIMIT} bytes")
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, error) from error
    if not isinstance(document, dict) or not _kind(document).startswith((_CONFIG, _ROOT)):
        raise _wrong(path, ValueError(f"its mediaType is {_kind(document)[:80]!r}"))
    return document


def _kind(document: object) -> str:
    return str(document.get("mediaType", "")) if isinstance(document, dict) else ""


def _wrong(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} is no trust configuration of Sigstore: {_line(error)}", hint=_HINT)


def _line(error: object) -> str:
    text = str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
