"""Keeps one program: a worker starts this, and this starts the program in a group of its own.

``python -m bentotool.runtime.keeper GRACE PROGRAM ARGUMENT...`` runs the program and ends as it ends. When standard
input ends the worker is gone, however it went: the program is asked to stop, and after GRACE seconds it is killed, with
all that it started. So no model server outlives its worker with a GPU and a port in its hands.

Exit status: the program's; 128 and the number of the signal that killed it; 127 where it cannot be started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

__all__ = ["main"]

_NOT_STARTED = 127
_SIGNALLED = 128


def _wait_for_the_end(process: subprocess.Popen[bytes], grace: float) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    with contextlib.suppress(OSError):
        process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and, where there are groups of processes, whatever it started."""
    if hasattr(os, "killpg") and hasattr(signal, "SIGKILL"):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()


def main(argv: list[str]) -> int:
    """Run a program until it ends, or has to; give the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):  # ctrl-C reaches the whole terminal; the worker decides
        signal.signal(number, signal.SIG_IGN)
    grace, command = float(argv[0]), argv[1:]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        sys.stderr.write(f"bentotool: {command[0]}: {(error.strerror or str(error)).lower()}\n")
        return _NOT_STARTED
    threading.Thread(target=_wait_for_the_end, args=(process, grace), daemon=True).start()
    status = process.wait()
    _kill(process)  # what it left behind in its group
    return _SIGNALLED - status if status < 0 else status


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status & 0xFF)
