"""What an array costs on the wire: as JSON, as a safetensors body, as ``.npy``, by the Open Inference Protocol.

    python tests/benchmarks/serving/tensors.py [--sizes 1000,100000,1000000] [--seconds 2]

A service that gives back the float32 array that it is sent is served by one worker. One connection calls it with each
form in turn; the time of a call, seen by the caller, is printed as the median and the best, with the bytes that go both
ways and the processor time that the worker spends for one call (Linux). The caller sends bytes that are ready and does
not read the answer, so its own work is not counted.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bentotool.sdk.npy import MEDIA_TYPE as NPY
from bentotool.sdk.tensors import MEDIA_TYPE as TENSORS
from bentotool.sdk.tensors import encode_tensors, tensor_of

SERVICE = """
import numpy as np
from typing import Annotated
import bentotool
from bentotool.validators import DType

Array = Annotated[np.ndarray, DType("float32")]

@bentotool.service(http={"max_body_bytes": 1 << 30}, traffic={"timeout": 120})
class Echo:
    @bentotool.api
    def echo(self, x: Array) -> Array:
        return x
"""


def forms(array: np.ndarray[Any, Any]) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Name, body and headers of each form of a request."""
    yield "JSON", json.dumps({"x": array.tolist()}).encode(), {"content-type": "application/json"}
    tensors = b"".join(encode_tensors({"x": tensor_of(array)}))
    yield "safetensors", tensors, {"content-type": TENSORS, "accept": TENSORS}
    buffer = io.BytesIO()
    np.save(buffer, array)
    yield ".npy", buffer.getvalue(), {"content-type": NPY, "accept": NPY}
    entry = {"name": "x", "shape": list(array.shape), "datatype": "FP32"}
    entry["parameters"] = {"binary_data_size": array.nbytes}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    length = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    yield "Open Inference", head + array.tobytes(), length


def worker_seconds(pid: int) -> float:
    """Processor seconds of the server's workers so far; 0 where the system does not say."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return 0.0
    ticks = 0
    for child in children.read_text().split():
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(port: int, pid: int, body: bytes, headers: dict[str, str], seconds: float) -> dict[str, float]:
    """Calls for some seconds: milliseconds of a call, milliseconds of the worker's processor, bytes of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def call() -> int:
        connection.request("POST", "/echo", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {content[:300]!r}")
        return len(content)

    size = call()
    before, times = worker_seconds(pid), []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    spent = (worker_seconds(pid) - before) / len(times)
    connection.close()
    return {"median": statistics.median(times) * 1e3, "best": min(times) * 1e3, "cpu": spent * 1e3, "size": size}


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The server and its port."""
    (folder / "service.py").write_text(SERVICE)
    port_file = folder / "port"
    command = [sys.executable, "-m", "bentotool.runtime", ".", "--port", "0", "--port-file", str(port_file), "--quiet"]
    server = subprocess.Popen(command, cwd=folder)
    end = time.monotonic() + 60
    while not port_file.exists() or not port_file.read_text():
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit("the server did not start")
        time.sleep(0.05)
    return server, int(port_file.read_text())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,100000,1000000", help="elements of the array")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each form")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        server, port = serve(Path(name))
        try:
            print("elements  form             bytes in  bytes out        ms      best   cpu ms of JSON")
            for size in map(int, options.sizes.split(",")):
                array = np.random.default_rng(7).standard_normal(size, dtype=np.float32).reshape(-1, 100)
                base = None
                for form, body, headers in forms(array):
                    found = measure(port, server.pid, body, headers, options.seconds)
                    base = base or found["median"]
                    print(
                        f"{size:>9} {form:<15} {len(body):>10} {found['size']:>10.0f} {found['median']:>9.2f} "
                        f"{found['best']:>9.2f} {found['cpu']:>8.2f} 1/{base / found['median']:.1f}",
                        flush=True,
                    )
        finally:
            server.terminate()
            server.wait(30)


if __name__ == "__main__":
    main()
