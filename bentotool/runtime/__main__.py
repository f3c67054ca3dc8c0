"""``python -m bentotool.runtime TARGET``: serve a Bento on disk, or a project folder. See `options`.

Little is imported before a signal is answered in order.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bentotool.runtime import endings

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; give the exit status."""
    endings.hold()
    try:
        from bentotool.runtime.starting import start

        return start(sys.argv[1:] if argv is None else argv)
    except endings.Ended as ended:
        return endings.status(ended.number)
    finally:
        endings.hold()  # it ends: another signal changes nothing, nor the exit status


if __name__ == "__main__":
    sys.exit(main())
