"""``python -m bentotool.runtime.healthcheck``: exit status 0 when the server of this container is ready.

For ``HEALTHCHECK`` of an image, which has neither a shell nor curl to count on. Standard library only.
"""

from __future__ import annotations

import http.client
import os
import sys

__all__ = ["main"]

_TIMEOUT_S = 3.0


def main() -> int:
    """Ask ``/readyz`` on the port of ``$PORT`` (3000 without it); the exit status."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 3000), timeout=_TIMEOUT_S)
        connection.request("GET", "/readyz")
        return 0 if connection.getresponse().status == http.client.OK else 1
    except (OSError, ValueError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main())
