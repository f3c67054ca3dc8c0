"""Batched inference under load: bentotool beside its peers, the bare HTTP floor and the offline batched ceiling.

    python batching.py [--model sim|onnx|deep] [--seconds 5] [--repeats 3] [--peer NAME=PYTHON]... [--only NAME]...

The same model, the same bytes, one worker each, the server on one core and the client on another. Peers are those of
bentoml, litserve, mlserver and fastapi whose interpreter is given. Closed loop with 1, 64, 128 and 256 clients; open
loop at shares of the model's capacity under the deadline. In time means within 50 ms of the planned arrival, by the
client's clock. Each figure is the median of the repeats, in (brackets) the spread. For us also: one client right
after the overload, and one that calls the model without batching.

``sim`` is a device of 8 ms and 1 ms per row. ``onnx`` is a perceptron with 512 inputs on one thread of onnxruntime,
which takes more rows than any server takes requests: HTTP is the limit, and there is no open loop. ``deep`` has six
more layers of 2048: there the model is the limit. So that its one thread has a core to itself, as if it were a device,
the server is not bound to one then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SERVERS = HERE / "servers"
DEADLINE_MS = 50.0
MOST_REQUESTS = 10_000
"""A model that takes more rows per second cannot be overloaded over HTTP."""
MOST_ARRIVALS = 20_000
"""Of more requests per second it is HTTP that is overloaded, and the client."""
SHARES = (0.3, 0.7, 0.95, 1.3, 10.0)
MLSERVER = {
    "name": "predict",
    "implementation": "mlserver_model.Predict",
    "max_batch_size": 64,
    "max_batch_time": 0.005,
}


@dataclass(frozen=True)
class Server:
    """How a server is started and asked."""

    command: tuple[str, ...]
    path: str = "/predict"
    ready: str = "/predict"
    env: tuple[tuple[str, str], ...] = ()
    openinference: bool = False
    deadline: bool = False
    unbatched: str | None = None


def servers(port: int, peers: dict[str, str], folder: Path) -> dict[str, Server]:
    """Those that can be started, by name."""
    us, at = sys.executable, str(port)
    uvicorn = ("-m", "uvicorn", "--port", at, "--no-access-log", "--log-level", "error")
    found = {
        "bare ASGI, no model": Server((us, *uvicorn, "--loop", "uvloop", "--http", "httptools", "bare:app")),
        "bentotool": Server(
            (us, "-m", "bentotool.runtime", str(SERVERS), "--service", "bentotool_service:Predict", "--port", at),
            ready="/readyz",
            unbatched="/single",
            deadline=True,
        ),
    }
    if python := peers.get("bentoml"):
        serve = (
            python,
            "-m",
            "bentoml",
            "serve",
            "bentoml_service:Predict",
            "--port",
            at,
            "--working-dir",
            str(SERVERS),
        )
        found["bentoml"] = Server(serve, ready="/readyz")
        found["bentoml, tuned"] = Server(serve, ready="/readyz", env=(("TUNED", "1"),))
    if python := peers.get("litserve"):
        found["litserve"] = Server((python, "litserve_server.py", at), ready="/health")
    if python := peers.get("mlserver"):
        (folder / "ml").mkdir(exist_ok=True)
        settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0}
        (folder / "ml" / "settings.json").write_text(json.dumps(settings))
        (folder / "ml" / "model-settings.json").write_text(json.dumps(MLSERVER))
        path = "/v2/models/predict/infer"
        command = (str(Path(python).with_name("mlserver")), "start", str(folder / "ml"))
        found["mlserver"] = Server(command, path, "/v2/health/ready", openinference=True)
    if python := peers.get("fastapi"):
        found["fastapi"] = Server((python, *uvicorn, "fastapi_app:app"), ready="/docs")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(server: Server, port: int, env: dict[str, str], core: int | None) -> Iterator[None]:
    """Start a server on one core; wait until it answers."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    process = subprocess.Popen(
        [*pin, *server.command],
        cwd=SERVERS,
        env={**os.environ, **env, **dict(server.env)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        began = time.monotonic()
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{server.ready}", timeout=5).close()
                break
            except urllib.error.HTTPError as error:
                if error.code not in (503, 502):
                    break
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() - began > 90:
                raise SystemExit(f"does not start: {' '.join(server.command)}")
            time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def offline(model: str, features: int, core: int | None) -> tuple[float, float]:
    """Rows per second of batches of 64, and the most under the deadline: two runs of one batch fit into it."""
    code = (
        "import sys, json, time, statistics\nfrom model import load\nimport numpy as np\nrun = load()\n"
        f"def cost(n):\n    rows = np.ones((n, {features}), np.float32); run(rows); times = []\n"
        "    for _ in range(15):\n        start = time.perf_counter(); run(rows)\n"
        "        times.append(time.perf_counter() - start)\n"
        "    return statistics.median(times)\n"
        "alpha_beta = np.polyfit([1, 16, 32, 64], [cost(n) for n in (1, 16, 32, 64)], 1)\n"
        "print(json.dumps([float(alpha_beta[1]), float(alpha_beta[0])]))\n"
    )
    pin = ["taskset", "-c", str(core)] if core is not None else []
    done = subprocess.run(
        [*pin, sys.executable, "-c", code],
        cwd=SERVERS,
        env={**os.environ, "MODEL": model},
        check=True,
        capture_output=True,
        text=True,
    )
    alpha, beta = json.loads(done.stdout)
    alpha = max(alpha, 1e-6)
    print(f"t(b) = {alpha * 1000:.3f} ms + {beta * 1000:.4f} ms x b")
    within = min(64.0, max(1.0, (DEADLINE_MS / 2000 - alpha) / beta))
    return 64 / (alpha + 64 * beta), within / (alpha + within * beta)


def load(url: str, body: Path, core: int | None, deadline: bool, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "openloop.py"), url, str(body), "--deadline-ms", str(DEADLINE_MS), *options]
    if deadline:
        command.append("--tell-deadline")
    if core is not None:
        command += ["--core", str(core)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def bodies(folder: Path, features: int) -> dict[bool, Path]:
    """The same row for each protocol: ours and BentoML's, and the Open Inference Protocol's."""
    rng = random.Random(3)
    row = [round(rng.uniform(-1, 1), 4) for _ in range(features)]
    tensor = {"name": "x", "shape": [1, features], "datatype": "FP32", "data": row}
    documents = {False: {"x": [row]}, True: {"inputs": [tensor]}}
    for openinference, document in documents.items():
        (folder / f"{openinference}.json").write_text(json.dumps(document))
    return {key: folder / f"{key}.json" for key in documents}


def middle(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({max(values) - min(values):.0f})"


def report(label: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the runs of one server, a line for each step."""
    print(f"\n{label}")
    for step, runs in found.items():
        answered, in_time = ([run[key] for run in runs] for key in ("answered", "in_time"))
        last = runs[-1]
        print(
            f"  {step:11} answered {middle(answered):>13}  in time {middle(in_time):>13}"
            f"  of {last['offered']:.0f}/s"
            f"  p50 {last['p50_ms']} p99 {last['p99_ms']} ms  refused in {last['refused_p99_ms']} ms"
            f"  {last['statuses']}  client {last['client_cpu']} cpu",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("sim", "onnx", "deep"), default="sim")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path, help="all figures of all runs")
    options = parser.parse_args()
    peers = dict(each.split("=", 1) for each in options.peer)
    features = 4 if options.model == "sim" else 512
    cores = (0, 1) if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity") else (None, None)
    everything: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), "sim"
        if options.model != "sim":
            sys.path.insert(0, str(SERVERS))
            from model import write_mlp  # type: ignore[import-not-found]

            model = str(folder / "mlp.onnx")
            write_mlp(model, *((2048, 6) if options.model == "deep" else (512, 0)))
        ceiling, capacity = offline(model, features, cores[0])
        print(f"offline, batches of 64: {ceiling:.0f} rows/s; under the deadline {capacity:.0f}/s")
        steps = {f"closed {n}": ("--clients", str(n)) for n in (1, 64, 128, 256)}
        if capacity < MOST_REQUESTS:
            rates = {share: share * capacity for share in SHARES if share * capacity < MOST_ARRIVALS}
            steps |= {f"open x{share:g}": ("--rate", str(rate)) for share, rate in rates.items()}
        body = bodies(folder, features)
        for label in servers(0, peers, folder):
            if options.only and label not in options.only:
                continue
            port = free_port()  # the last server's may not be free yet
            server = servers(port, peers, folder)[label]
            url, found = f"http://127.0.0.1:{port}{server.path}", everything.setdefault(label, {})
            with running(server, port, {"MODEL": model}, cores[0] if options.model != "deep" else None):
                load(url, body[server.openinference], cores[1], False, "--clients", "16", "--seconds", "2")
                for step, arguments in steps.items():
                    if label.startswith("bare") and step.startswith("open"):
                        continue
                    told = server.deadline and step != "closed 1"
                    further = (*arguments, "--seconds", str(options.seconds))
                    found[step] = [
                        load(url, body[server.openinference], cores[1], told, *further) for _ in range(options.repeats)
                    ]
                if server.unbatched is not None:
                    for step, path in {"after burst": server.path, "unbatched": server.unbatched}.items():
                        at = f"http://127.0.0.1:{port}{path}"
                        found[step] = [load(at, body[False], cores[1], False, "--clients", "1", "--seconds", "2")]
            report(label, found)
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
