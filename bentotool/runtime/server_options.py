"""What uvicorn is told of one service: connections, websockets, TLS."""

from __future__ import annotations

import inspect
import logging
import os
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bentotool.errors import ServiceLoadError
from bentotool.runtime.certificates import expiry
from bentotool.runtime.websockets import websocket_protocol
from bentotool.sdk.service import Service
from bentotool.sdk.transport_options import TlsOptions, read_tls

__all__ = ["server_options", "tls_context"]

_KEPT_S = 75
"""Seconds that a silent connection is kept. Balancers keep theirs for 60; were the server the first to close one, the
request that is just being sent on it is lost."""

_log = logging.getLogger("bentotool.service")


def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """A context for a server, made and checked before the server says that it is ready.

    Raises:
        ServiceLoadError: a file cannot be read, or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    named = options.certfile
    try:
        for named in filter(None, (options.certfile, options.keyfile)):
            Path(named).read_bytes()  # `ssl` does not say which of the two is not there
        # without the function OpenSSL would ask on the terminal for the password of a locked key
        context.load_cert_chain(options.certfile, options.keyfile, options.keyfile_password or (lambda: ""))
        if options.ca_certs is not None:
            named = options.ca_certs
            context.load_verify_locations(options.ca_certs)
        context.verify_mode = ssl.VerifyMode(options.cert_reqs)
        if options.ciphers:
            named = f"ciphers {options.ciphers!r}"
            context.set_ciphers(options.ciphers)
    except OSError as error:  # ssl.SSLError is one
        said = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else (error.args or ("?",))[-1]
        raise ServiceLoadError(
            f"TLS: {named}: {said}", hint="--ssl-certfile and --ssl-keyfile are PEM files that belong together"
        ) from error
    if (ended := expiry(Path(options.certfile).read_text(encoding="latin-1"))) and ended < time.time():
        day = time.strftime("%Y-%m-%d", time.gmtime(ended))
        _log.warning("the certificate %s has expired on %s: callers will refuse it", options.certfile, day)
    context.set_alpn_protocols(["http/1.1"])
    return context


def server_options(
    service: Service[Any], *, public: bool = True, variables: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`.

    Args:
        public: callers reach this worker; False where only other services of the same server do.
        variables: the environment: ``BENTOTOOL_SSL_CERTFILE`` and the like.

    Raises:
        ServiceLoadError: a certificate cannot be used, or the library for websockets is absent.
    """
    import uvicorn

    from bentotool.runtime.repeats import Repeating

    found: dict[str, Any] = {
        "http": Repeating,
        "ws": websocket_protocol(service),
        "ws_max_size": service.config.max_body_bytes,
        "ws_per_message_deflate": False,  # a few bytes could unfold to any size
        "timeout_keep_alive": _KEPT_S,
    }
    known = inspect.signature(uvicorn.Config).parameters
    if "reset_contextvars" in known and sys.version_info >= (3, 11):
        found["reset_contextvars"] = True  # a request must not see what another one left on its connection
    tls = read_tls(service.config.options.get("ssl"), service.name, variables) if public else None
    if tls is not None:
        context = tls_context(tls)
        if "ssl_context_factory" in known:
            found["ssl_context_factory"] = lambda _config, _default: context
        else:
            found.update(
                ssl_certfile=tls.certfile, ssl_keyfile=tls.keyfile, ssl_keyfile_password=tls.keyfile_password,
                ssl_ca_certs=tls.ca_certs, ssl_cert_reqs=tls.cert_reqs, ssl_ciphers=tls.ciphers or "TLSv1",
            )  # fmt: skip
    return found
