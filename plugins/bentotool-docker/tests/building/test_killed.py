"""Images of both builders whose container is killed: the engine starts it again, and it answers as before."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("builder", ["oci", "buildkit"])
def test_it_answers_again(
    builder: str, kit: Any, builds: Any, engine: Any, archive: str, simple: str, tools: Any
) -> None:
    name = f"bentotool-test/killed-{builder}:1"
    builds.made("containerize", simple, "--builder", builder, "--base", archive, "-t", name, "--load")
    policy = {"Name": "on-failure", "MaximumRetryCount": 3}
    try:
        with kit.running(engine, name, tools.wait_for, read_only=True, restart_policy=policy) as (container, url):
            assert tools.call(url, "hi") == "hi"
            process = container.attrs["State"]["Pid"]
            if os.geteuid() != 0 or b"bentotool.runtime" not in _command(process):
                pytest.skip("needs root, and an engine of this machine")  # docker kill counts as a stop
            os.kill(process, signal.SIGKILL)

            def again() -> bool:
                container.reload()
                bindings = container.attrs["NetworkSettings"]["Ports"].get("3000/tcp")
                if container.attrs["RestartCount"] != 1 or not bindings:
                    return False
                return bool(tools.call(f"http://127.0.0.1:{bindings[0]['HostPort']}", "hi") == "hi")

            tools.wait_for(again, "it does not answer again")
    finally:
        engine.images.remove(name, force=True)


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
