"""Time of light commands beside ``python -c pass``: ``python tests/benchmarks/cli_startup.py [RUNS]``.

Rounds are interleaved, so that a busy moment hits every row alike. Nothing is asserted.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

BUDGET = 8
"""At most this many times ``python -c pass``."""


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    script = [os.path.join(os.path.dirname(sys.executable), "bentotool")]
    rows = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "bentotool --version": [*script, "--version"],
        "bentotool --help": [*script, "--help"],
        "bentotool list": [*script, "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "BENTOTOOL_STORE": os.path.join(folder, "store")}
        for _ in range(runs):
            for name, command in rows.items():
                times[name].append(_seconds(command, environment))
    floor = statistics.median(times["python -c pass"])
    print(f"{'command':<22} {'min ms':>8} {'p50 ms':>8} {'p95 ms':>8} {'ratio':>6}   (budget {BUDGET})")
    for name, values in times.items():
        p95 = sorted(values)[int(0.95 * (len(values) - 1))]
        low, middle = min(values), statistics.median(values)
        print(f"{name:<22} {low * 1e3:8.1f} {middle * 1e3:8.1f} {p95 * 1e3:8.1f} {middle / floor:6.1f}")


if __name__ == "__main__":
    main()
