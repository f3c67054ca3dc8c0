"""``python -m bentotool.runtime.healthcheck [PATH]``: exit status 0 when the server of this container is ready.

For ``HEALTHCHECK`` of an image, which has neither a shell nor curl to count on. Standard library only.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

__all__ = ["main"]

_TIMEOUT_S = 3.0


def _ask(connection: http.client.HTTPConnection, path: str) -> int:
    try:
        connection.request("GET", path)
        return 0 if connection.getresponse().status == http.client.OK else 1
    finally:
        connection.close()


def main(path: str = "/readyz") -> int:
    """Ask for `path` on the port of ``$PORT`` (3000 without it), with TLS where plain HTTP is not spoken."""
    try:
        port = int(os.environ.get("PORT") or 3000)
        try:
            return _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S), path)
        except (http.client.HTTPException, ConnectionResetError):  # what a server that speaks TLS does
            # our own server, on loopback: its certificate is for another name
            context = ssl._create_unverified_context()  # noqa: S323
            return _ask(http.client.HTTPSConnection("127.0.0.1", port, timeout=_TIMEOUT_S, context=context), path)
    except ssl.SSLError as error:  # the server asks for a certificate, which this program has not: it is there
        return 0 if "CERTIFICATE_REQUIRED" in str(error.reason) else 1
    except (OSError, ValueError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
