"""Run an instance until it is interrupted: ``python -m sigstore_stand_in FOLDER`` from the folder ``tests``."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

from sigstore_stand_in import StandIn

if __name__ == "__main__":
    instance = StandIn(Path(sys.argv[1]))
    (instance.folder / "token").write_text(instance.token(seconds=86_400), encoding="utf-8")
    print(instance.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    instance.close()
