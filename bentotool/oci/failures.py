"""Why a connection could not be made, told with what to do next."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3.exceptions

from bentotool.errors import RemoteError

__all__ = ["broken", "tls_failure", "unanswered"]

# Codes of OpenSSL's x509_vfy.h.
_NOT_YET, _EXPIRED = 9, 10
_MISMATCHES = frozenset({62, 63, 64})  # of a host name, an e-mail address, an IP address
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 24})
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
_WANTS_CERTIFICATE = (
    "CERTIFICATE_REQUIRED",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_UNKNOWN_CA",
)
_INSECURE = "--insecure-skip-tls-verify takes any certificate"


def tls_failure(where: str, error: BaseException) -> RemoteError | None:
    """What is wrong with TLS, if it is that: another try would not mend it.

    Args:
        where: what was asked, as a person knows it.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate_failure(where, cause)
        if isinstance(cause, ssl.SSLError):
            reason = f"{cause.reason or ''} {cause.args}".upper().replace(" ", "_")
            if any(each in reason for each in _NO_TLS):
                return RemoteError(
                    f"{where} does not speak TLS", hint="a registry without TLS is asked with --plain-http"
                )
            if any(each in reason for each in _WANTS_CERTIFICATE):
                return RemoteError(
                    f"{where} asks for a client certificate that it trusts",
                    hint="show one with --client-cert FILE and --client-key FILE",
                )
    return None


def _certificate_failure(where: str, error: ssl.SSLCertVerificationError) -> RemoteError:
    code = error.verify_code
    if code == _EXPIRED:
        return RemoteError(f"the TLS certificate of {where} has expired", hint=f"ask its operator; {_INSECURE}")
    if code == _NOT_YET:
        return RemoteError(
            f"the TLS certificate of {where} is not valid yet", hint=f"check this machine's clock; {_INSECURE}"
        )
    if code in _MISMATCHES:
        return RemoteError(
            f"the TLS certificate of {where} is for another name", hint=f"ask for it by the name it has; {_INSECURE}"
        )
    if code in _UNKNOWN_AUTHORITY:
        return RemoteError(
            f"the TLS certificate of {where} is from an authority that is not trusted here",
            hint="name that authority's certificate with --ca-file FILE",
        )
    return RemoteError(
        f"the TLS certificate of {where} is not valid: {error.verify_message}"[:200],
        hint="a private authority is named with --ca-file FILE",
    )


def unanswered(where: str, error: BaseException) -> RemoteError:
    """What kept a first request from being answered."""
    found = tls_failure(where, error)
    if found is not None:
        return found
    causes = list(_causes(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    hint = "check its name and port, and that it runs"
    if has(requests.exceptions.ProxyError):
        why, hint = "the proxy does not let it through", "see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    elif has(socket.gaierror):
        why, hint = "its name is not known", "check the name, and the network"
    elif has(ConnectionRefusedError):
        why = "nothing listens there"
    elif has(requests.exceptions.Timeout, TimeoutError):
        why, hint = "it took too long", "check its name and port, and the network"
    elif has(ssl.SSLError):
        why = "TLS with it failed"
    elif has(ConnectionError):
        # With TLS 1.3 a client's certificate is judged when the client thinks that all is well; the alert may be lost.
        why, hint = "it closed the connection", "check its port; one that asks for a certificate needs --client-cert"
    else:
        why = ""
    return RemoteError(f"{where} did not answer" + (f": {why}" if why else ""), hint=hint)


def broken(where: str, error: BaseException, seconds: float) -> RemoteError:
    """What ended a transfer with somebody who had answered before.

    Args:
        seconds: the time limit that a slow one exceeded.
    """
    causes = list(_causes(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    # urllib3 counts a connection that was refused among the time limits.
    if has(ConnectionRefusedError):
        return RemoteError(f"{where} broke: nothing listens there any more", hint="the same command goes on with it")
    if has(requests.exceptions.ProxyError, socket.gaierror):
        return RemoteError(f"{where} broke: there is no way to it any more", hint="the same command goes on with it")
    if has(requests.exceptions.ConnectTimeout):
        return RemoteError(f"{where} broke: it takes no connection any more", hint="the same command goes on with it")
    late = has(requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    why = f"too little within {seconds:g} seconds" if late else "connection lost"
    return RemoteError(f"{where} broke: {why}", hint="the same command goes on with it")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it wraps: the HTTP libraries keep the system's own in arguments, reasons and causes."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
        waiting += [each for each in inner if isinstance(each, BaseException)]
