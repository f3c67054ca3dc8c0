"""What uvicorn is told of one service: connections, websockets, TLS."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

from bentotool.runtime.tls import tls_context, tls_of
from bentotool.runtime.websockets import websocket_protocol
from bentotool.sdk.service import Service

__all__ = ["server_options"]

_KEPT_S = 75
"""Seconds that a silent connection is kept. Balancers keep theirs for 60; were the server the first to close one, the
request that is just being sent on it is lost."""


def server_options(
    service: Service[Any], *, public: bool = True, variables: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`.

    Args:
        public: callers reach this worker; False where only other services of the same server do.
        variables: the environment: ``BENTOTOOL_SSL_CERTFILE`` and the like.

    Raises:
        UsageError: a certificate cannot be used.
        ServiceLoadError: the library for websockets is absent.
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
    tls = tls_of(service, variables) if public else None
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
