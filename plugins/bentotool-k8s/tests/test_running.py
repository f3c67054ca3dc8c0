"""What the Deployments of a graph say is run for real: arguments, variables, probes and end, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bentotool_k8s.manifests import objects
from bentotool_k8s.options import OPTIONS

from bentotool.build.probe import probe_service
from bentotool.deploy.graph import services_of
from bentotool.deploy.options import option_values
from bentotool.deployspec import PublishedImage
from bentotool.targetspec import DeployBento, DeployOptions, TargetDecl

pytestmark = pytest.mark.timeout(240)
LIMIT = 100.0
SERVICE = """
import bentotool
from scoring import Scorer

@bentotool.service(path_prefix="/front", workers="cpu_count")
class Front:
    scorer = bentotool.depends(Scorer)

    @bentotool.api
    def ask(self, text: str) -> int:
        return self.scorer.score(text) + 1
"""
SCORING = """
import os
import bentotool

@bentotool.service(name="text.scorer", envs=[{"name": "FACTOR", "value": "10"}])
class Scorer:
    @bentotool.api
    def score(self, text: str) -> int:
        return len(text) * int(os.environ["FACTOR"])
"""


@dataclass
class Pod:
    """One container of a Deployment, as a process of this machine."""

    process: subprocess.Popen[bytes]
    container: dict[str, Any]
    port: int

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """``run(deployment, addresses)`` starts its container; the names of Services are ``addresses`` of this machine."""
    pods: list[Pod] = []

    def start(deployment: Any, addresses: dict[str, str]) -> Pod:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        given = {each["name"]: each["value"] for each in container["env"]}
        for name, address in addresses.items():
            given = {key: value.replace(f"http://{name}", address) for key, value in given.items()}
        port = tmp_path / f"{deployment['metadata']['name']}.port"
        # the image's entrypoint, with the project in place of the Bento and a free port in place of the container's
        command = [sys.executable, "-m", "bentotool.runtime", str(tmp_path / "project"), *container.get("args", ())]
        command += ["--port", "0", "--port-file", str(port)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BENTOTOOL_")}
        process = subprocess.Popen(command, env={**kept, **given})
        deadline = time.monotonic() + LIMIT
        while not (port.exists() and port.read_text().strip()):
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pods.append(Pod(process, container, int(port.read_text())))
        return pods[-1]

    yield start
    for pod in pods:
        pod.process.kill()
        pod.process.wait(timeout=LIMIT)


def test_a_graph_runs_as_its_deployments_say(
    run: Callable[..., Pod], tmp_path: Path, require_package: Callable[[str], None]
) -> None:
    for name in ("litestar", "httpx"):
        require_package(name)
    project = tmp_path / "project"
    project.mkdir()
    (project / "service.py").write_text(SERVICE)
    (project / "scoring.py").write_text(SCORING)
    probe = probe_service(project, "service:Front", store=tmp_path / "store")
    services = services_of(SimpleNamespace(tag="front:1", config={"services": probe.services}))  # type: ignore[arg-type]
    decl = TargetDecl("k8s", "bentotool_k8s.target:KubernetesTarget", "Kubernetes", options=OPTIONS)
    values = option_values(decl, ["drain=0", "grace=20", "cpu-limit=1"])
    bento = DeployBento("front", "1", "", services=services, packages=frozenset({"httpx"}))
    made = objects(bento, DeployOptions("front", values), PublishedImage("r.example/front", "1"))
    scoring, front = (each for each in made if each["kind"] == "Deployment")
    assert [each["metadata"]["name"] for each in (scoring, front)] == ["front-text-scorer", "front"]
    scorer = run(scoring, {})
    assert scorer.ask("/score", {"text": "abc"}) == (200, b"30")
    assert scorer.ask("/ask", {"text": "abc"})[0] == 404, "it serves its own Service alone"
    entry = run(front, {"front-text-scorer": f"http://127.0.0.1:{scorer.port}"})
    for pod in (scorer, entry):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert pod.ask(pod.container[kind]["httpGet"]["path"])[0] == 200, kind
    assert entry.ask("/front/ask", {"text": "abc"}) == (200, b"31")
    assert b'runner_name="Front"' in entry.ask("/front/metrics")[1]
    scorer.process.terminate()
    assert scorer.process.wait(timeout=LIMIT) == 0
    assert entry.ask("/front/readyz")[0] == 200, "who is called takes nobody along"
    assert entry.ask("/front/ask", {"text": "abc"})[0] == 503
    entry.process.terminate()
    assert entry.process.wait(timeout=LIMIT) == 0
