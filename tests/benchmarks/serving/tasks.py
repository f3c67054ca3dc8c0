"""Ten thousand tasks: how fast they are submitted and run, what a server needs for it.

    python tests/benchmarks/serving/tasks.py [--tasks 10000] [--body 100] [--address redis://127.0.0.1:6379/0]

prints a line for each figure. Everything is on this machine: the callers take their share of the processors.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import bentotool

SERVICE = """
import os, bentotool

@bentotool.service(tasks={"path": os.environ["PLACE"]})
class Work:
    @bentotool.task(parallel=16, max_waiting=1_000_000)
    async def noop(self, text: str) -> int:
        return len(text)

    @bentotool.task(parallel=1, max_waiting=1_000_000)
    def held(self, text: str) -> int:
        import time
        time.sleep(3600)
        return 0
"""
CALLERS = 16


def memory(supervisor: int) -> dict[str, float]:
    """MB of resident memory by process: the supervisor and its children."""
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(supervisor)], capture_output=True, text=True, check=True
    )
    found = {}
    for name, pid in (("supervisor", supervisor), *(("worker", int(word)) for word in listing.stdout.split())):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found[name] = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    return found


def submit(port: int, name: str, count: int, body: bytes) -> tuple[list[str], list[float]]:
    """Ids, and the seconds that each submission took."""
    ids: list[str] = []
    took: list[float] = []

    def call(share: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(share):
            began = time.perf_counter()
            connection.request("POST", f"/{name}/submit", body, {"content-type": "application/json"})
            document = json.loads(connection.getresponse().read())
            took.append(time.perf_counter() - began)
            ids.append(document["task_id"])
        connection.close()

    threads = [threading.Thread(target=call, args=(count // CALLERS,)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ids, took


def ask(port: int, name: str, id_: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/{name}/status?task_id={id_}")
    state = json.loads(connection.getresponse().read())["status"]
    connection.close()
    return str(state)


def waiting(port: int, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if "_tasks{" in line and f'task="{name}"' in line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--body", type=int, default=100)
    parser.add_argument("--address", help="of another store, as redis://127.0.0.1:6379/0")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "project"
        folder.mkdir()
        (folder / "service.py").write_text(SERVICE)
        environment = {
            "PLACE": given.address or str(Path(place) / "tasks"),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        body = json.dumps({"text": "x" * given.body}).encode()
        with bentotool.serve(folder, environment=environment) as server:
            port = int(server.url.rpartition(":")[2])
            assert server.process is not None
            print("memory before, MB", memory(server.process.pid))
            began = time.perf_counter()
            ids, took = submit(port, "held", given.tasks, body)
            seconds = time.perf_counter() - began
            print(f"submitted {len(ids)} in {seconds:.2f} s: {len(ids) / seconds:.0f}/s", end=", ")
            print(f"p50 {statistics.median(took) * 1e3:.1f} ms, p99 {sorted(took)[int(len(took) * 0.99)] * 1e3:.1f} ms")
            print("memory with all of them waiting, MB", memory(server.process.pid))
            size = sum(file.stat().st_size for file in (Path(place) / "tasks").rglob("*") if file.is_file())
            print(f"on disk {size / 1e6:.1f} MB")
            began = time.perf_counter()
            for id_ in ids[:: max(1, len(ids) // 200)]:
                ask(port, "held", id_)
            print(f"a status {(time.perf_counter() - began) / 200 * 1e3:.2f} ms, a new connection each")
            began = time.perf_counter()
            ids, _ = submit(port, "noop", given.tasks, body)
            while waiting(port, "noop"):
                time.sleep(0.05)
            seconds = time.perf_counter() - began
            print(f"{len(ids)} submitted and run in {seconds:.2f} s beside the others: {len(ids) / seconds:.0f}/s")
            assert {ask(port, "noop", id_) for id_ in ids[::100]} == {"completed"}
            print("memory after, MB", memory(server.process.pid))
            server.process.kill()
        began = time.perf_counter()
        with bentotool.serve(folder, environment=environment) as server:
            port = int(server.url.rpartition(":")[2])
            ask(port, "noop", ids[0])
            print(f"a server that finds {given.tasks} waiting answers after {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
