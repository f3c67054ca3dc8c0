"""Time, size and bytes sent of container images: ``python tests/benchmarks/images/containerize.py BASE [BUILDER]``.

A service with scikit-learn and ONNX Runtime, from nothing, again, after an edit of its code, after one more dependency;
each image is pushed to a docker-registry of this machine. ``BASE`` is an image with this interpreter's version, such as
``oci:FOLDER`` or ``docker.io/library/python:3.12-slim``. Nothing is asserted. uv's cache is the user's: packages that
it has are not downloaded. ``docker-registry`` has to be on the path.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SERVICE = """
import bentotool

@bentotool.service
class Hello:
    @bentotool.api
    def predict(self, x: float) -> float:
        return {factor} * x
"""
CONFIG = "name: hello\npython:\n  version: '{version}'\n  packages: [{packages}]\n"
PACKAGES = ["scikit-learn", "onnxruntime"]


def run(folder: Path, *arguments: str) -> tuple[float, Any]:
    """Seconds and result of a command."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "bentotool", *arguments, "--json", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start, json.loads(done.stdout)


def write(folder: Path, factor: int, packages: list[str]) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "service.py").write_text(SERVICE.format(factor=factor))
    (folder / "bentofile.yaml").write_text(CONFIG.format(version=version, packages=", ".join(packages)))


def registry(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{folder / 'registry'}'}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    return process, host


def main() -> None:
    base, builder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "oci"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["BENTOTOOL_STORE"] = str(folder / "store")
        project = folder / "project"
        project.mkdir()
        server, host = registry(folder)
        try:
            print(f"{'':<18} {'build':>7} {'image':>7}   {'sent':>12} {'above base':>12} {'whole':>12}")
            for number, (title, factor, more) in enumerate(
                [("from nothing", 2, []), ("again", 2, []), ("code edited", 3, []), ("dependency added", 3, ["orjson"])]
            ):
                write(project, factor, [*PACKAGES, *more])
                build, bento = run(project, "build")
                options = ("--base", base, "--builder", builder, "-t", f"{host}/hello:{number}", "--push")
                made, image = run(project, "containerize", bento["tag"], *options)
                layers = image["images"][0]["layers"]
                above = sum(layer["size"] for layer in layers if layer["kind"] != "base")
                sent, whole = image["pushed"][0]["sent"], image["size"]
                print(f"{title:<18} {build:6.2f}s {made:6.2f}s   {sent:>12,} {above:>12,} {whole:>12,}", flush=True)
        finally:
            server.terminate()
            server.wait(10)


if __name__ == "__main__":
    main()
