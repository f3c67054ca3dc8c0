"""Who may call: the keys of ``http.api_keys``, and what the service's own ``__authenticate__`` says."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bentotool.errors import ServiceLoadError
from bentotool.sdk.exceptions import ServiceError
from bentotool.sdk.transport_options import ApiKeys

__all__ = ["Forbidden", "KeyRing", "Unauthorized", "load_keys"]

_SHORTEST = 16


class Unauthorized(ServiceError):
    """No key, or one that is not known (401)."""

    code = "unauthorized"
    http_status = 401


class Forbidden(ServiceError):
    """The caller is known and may not do this (403)."""

    code = "forbidden"
    http_status = 403


def load_keys(options: ApiKeys, variables: Mapping[str, str] = os.environ) -> KeyRing:
    """Read the keys.

    Raises:
        ServiceLoadError: they are not there, or one can be guessed. A server never starts open because of that.
    """
    if options.env is not None:
        where, text = f"environment variable {options.env}", variables.get(options.env, "")
        found = [key for key in re.split(r"[,\s]+", text) if key]
        hint = f"set {options.env} to one or more keys, or take http.api_keys out"
    else:
        where, hint = f"file {options.file}", "write one key per line, or take http.api_keys out"
        try:
            lines = Path(str(options.file)).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "not a text"
            raise ServiceLoadError(f"{where} of http.api_keys cannot be read: {said}", hint=hint) from error
        found = [line.partition("#")[0].strip() for line in lines]
        found = [line for line in found if line]
    if not found:
        raise ServiceLoadError(f"{where} of http.api_keys holds no key", hint=hint)
    if any(len(key) < _SHORTEST for key in found):
        raise ServiceLoadError(
            f"{where} of http.api_keys holds a key of fewer than {_SHORTEST} characters, which can be guessed",
            hint="make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return KeyRing(found, options.header)


class KeyRing:
    """Known keys, kept as digests only.

    Args:
        keys: as callers show them.
        header: that holds a key alone.
    """

    def __init__(self, keys: list[str], header: str) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._header = header.encode("latin-1")

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Look at the headers of a request.

        Raises:
            Unauthorized: no key, or none that is known.
        """
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        given = shown.strip() if scheme.lower() == b"bearer" else headers.get(self._header, b"")
        if not given:
            hint = f"send authorization: Bearer KEY, or {self._header.decode()}: KEY"
            raise Unauthorized("this service asks for a key", hint=hint)
        digest = hashlib.sha256(given).digest()
        known = False
        for one in self._digests:  # every one is compared: the time says nothing about which is near
            known |= hmac.compare_digest(one, digest)
        if not known:
            raise Unauthorized("the key is not known here", hint="ask the service's owner for a key")


async def ask_service(question: Callable[..., Any], request: Any) -> None:
    """What ``__authenticate__(request)`` says.

    Raises:
        Unauthorized: False, or None.
        ServiceError: what it raises itself.
    """
    import inspect

    answer = question(request)
    if inspect.isawaitable(answer):
        answer = await answer
    if not answer:
        raise Unauthorized("the service does not know this caller")
