"""Requests per second of an API that does nothing, beside a bare ASGI application on the same uvicorn.

    python tests/benchmarks/serving/noop.py [--seconds 4] [--repeats 3] [--connections 16]

Needs ``wrk``. Both servers run one worker with uvloop and httptools; they are measured in turn, and the median of the
repeats is printed with the ratio. The time from the start of the process to the first 200 of ``/readyz`` and the
proportional memory (Linux) of the idle server are printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SERVICE = """
import bentotool

@bentotool.service
class Noop:
    @bentotool.api
    async def noop(self, x: list[float]) -> dict[str, float]:
        return {"y": x[0]}
"""
BARE = """
import msgspec

decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

async def app(scope, receive, send):
    body = (await receive())["body"]
    out = encode({"y": decode(body)["x"][0]}) if body else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": out})
"""
REQUEST = """
wrk.method = "POST"
wrk.body = '{"x":[1.5,2.5,3.5,4.5]}'
wrk.headers["Content-Type"] = "application/json"
"""
FREE_PORTS = (38211, 38212)


@contextlib.contextmanager
def server(command: list[str], folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a server; give it and the seconds until it answers."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                break
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise SystemExit(f"does not start: {' '.join(command)}")
            time.sleep(0.005)
        yield process, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def measure(port: int, folder: Path, seconds: int, connections: int) -> tuple[float, str]:
    """Requests per second, and the 99th percentile."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(folder / "request.lua")]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/noop"], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise SystemExit(done.stdout)
    rate, p99 = (
        re.search(r"Requests/sec:\s+([\d.]+)", done.stdout),
        re.search(r"^\s+99%\s+(\S+)", done.stdout, re.MULTILINE),
    )
    assert rate is not None
    assert p99 is not None
    return float(rate[1]), p99[1]


def memory(pid: int) -> float:
    """Proportional set size of a process and its children, MB."""
    total = 0
    for child in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{child}/smaps_rollup").read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("needs wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (("service.py", SERVICE), ("bare.py", BARE), ("request.lua", REQUEST)):
            (folder / file).write_text(text)
        ours = [sys.executable, "-m", "bentotool.runtime", ".", "--port", str(FREE_PORTS[0])]
        bare = [sys.executable, "-m", "uvicorn", "bare:app", "--port", str(FREE_PORTS[1]), "--lifespan", "off"]
        bare += ["--no-access-log", "--loop", "uvloop", "--http", "httptools"]
        results: dict[str, list[tuple[float, str]]] = {"bentotool": [], "bare": []}
        with (
            server(ours, folder, FREE_PORTS[0]) as (process, start),
            server(bare, folder, FREE_PORTS[1]) as (_, bare_start),
        ):
            print(f"start: bentotool {start:.2f} s, bare {bare_start:.2f} s")
            if Path("/proc/self/smaps_rollup").exists():
                print(f"idle memory: {memory(process.pid):.0f} MB")
            for _ in range(options.repeats):
                for key, port in zip(results, FREE_PORTS, strict=True):
                    results[key].append(measure(port, folder, options.seconds, options.connections))
    medians = {key: statistics.median(rate for rate, _ in found) for key, found in results.items()}
    for key, found in results.items():
        print(f"{key}: {medians[key]:.0f}/s, p99 {', '.join(p99 for _, p99 in found)}")
    print(f"ratio: {medians['bentotool'] / medians['bare']:.2f}")


if __name__ == "__main__":
    main()
