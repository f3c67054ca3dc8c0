"""A graph of Services by compose, on a real engine: started, called, updated, broken, interrupted, deleted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

PROJECT = "com.docker.compose.project"
GRAPH = """
import os, pathlib, socket
import bentotool

@bentotool.service
class BigModel:
    def __init__(self):
        if os.environ.get("BROKEN"):
            raise ValueError("broken on purpose")

    def __is_ready__(self) -> bool:
        return not os.environ.get("NEVER_READY")

    @bentotool.api
    def where(self) -> str:
        return socket.gethostname()

@bentotool.service
class Front:
    big = bentotool.depends(BigModel)

    @bentotool.api
    async def ask(self) -> dict[str, str]:
        token = pathlib.Path("/run/secrets/token")
        return {
            "version": os.environ.get("VERSION", ""), "from_file": os.environ.get("FROM_FILE", ""),
            "here": socket.gethostname(), "there": await self.big.to_async.where(),
            "secret": token.read_text() if token.exists() else "",
        }
"""


class Graph:
    """A project of two Services, and the command on it."""

    def __init__(self, project: Any, folder: Path) -> None:
        self._project, self.folder = project, folder
        self.tag = "."  # built by the first deployment
        folder.mkdir()
        (folder / "service.py").write_text(GRAPH)
        (folder / "bentofile.yaml").write_text(
            'service: "service:Front"\npython:\n  version: "3.11"\n  packages: [httpx, websockets]\n'
        )

    def command(self, *words: str) -> list[str]:
        return list(self._project.command(*words))

    def words(self, name: str, *words: str) -> list[str]:
        folder = str(self.folder.parent / f"file-{name}")
        return ["--json", "deploy", "compose", self.tag, "--name", name, "--folder", folder, "--grace", "1", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=self.folder, capture_output=True, text=True, timeout=200, check=False
        )

    def deploy(self, name: str, *words: str) -> Any:
        done = self.run(*self.words(name, *words))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, name: str, *words: str) -> Any:
        done = self.run(*self.words(name, *words))
        assert done.returncode != 0
        return json.loads(done.stderr.splitlines()[-1])["error"]


@pytest.fixture(scope="session")
def compose(engine: Any, require_tool: Callable[[str], str]) -> None:
    docker = require_tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=60, check=False).returncode:
        lacking = os.environ.get("BENTOTOOL_TEST_WITHOUT_TOOLS", "").split()
        if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and "docker-compose" not in lacking:
            pytest.fail("needs docker compose, which is not here", pytrace=False)
        pytest.skip("needs docker compose")


@pytest.fixture(scope="session")
def graph(compose: None, project: Any, engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    found = Graph(project, tmp_path_factory.mktemp("compose") / "project")
    keeper = f"test-{os.getpid()}-keeper"  # its image is that of all others, as it stays until the end
    found.tag = found.deploy(keeper, "--no-start", "--base", f"oci-archive:{project.base}")["tag"]
    yield found
    found.run("deployment", "delete", keeper)


@pytest.fixture
def clean(engine: Any, name: str) -> Iterator[str]:
    """The name of a deployment; whatever is left of it goes after the test."""
    yield name
    for project in (f"bentotool-{name}", f"bentotool-{name}-trial"):
        for container in engine.containers.list(all=True, filters={"label": f"{PROJECT}={project}"}):
            container.remove(force=True, v=True)
        for network in engine.networks.list(filters={"label": f"{PROJECT}={project}"}):
            network.remove()


def there(engine: Any, name: str) -> set[str]:
    """Names of what the engine has of a deployment, its trial too."""
    found: set[str] = set()
    for project in (f"bentotool-{name}", f"bentotool-{name}-trial"):
        label = {"label": f"{PROJECT}={project}"}
        found |= {each.name for each in engine.containers.list(all=True, filters=label)}
        found |= {each.name for each in engine.networks.list(filters=label)}
    return found


def wait_for_trial(engine: Any, name: str) -> None:
    deadline = time.monotonic() + 150
    while len(there(engine, name)) <= len(standing(name)):
        assert time.monotonic() < deadline, "the trial did not begin"
        time.sleep(0.2)


def standing(name: str) -> set[str]:
    return {f"bentotool-{name}-front-1", f"bentotool-{name}-big-model-1", f"bentotool-{name}_inside"}


def test_a_graph_from_a_folder_and_away(
    graph: Graph, engine: Any, clean: str, tools: SimpleNamespace, tmp_path: Path
) -> None:
    secret, variables = tmp_path / "token", tmp_path / "variables"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    variables.write_text("FROM_FILE=kept$elsewhere\n")
    done = graph.deploy(
        clean, "--port", "0", "--env", "VERSION=a$b ${c}", "--secret", f"token={secret}", "--env-file", str(variables),
        "--set", "BigModel.memory=256m", "--cpu", "1", "--set", "Front.workers=2",
    )  # fmt: skip
    assert (done["target"], done["status"], done["facts"]["services"]) == ("compose", "ready", ["front", "big-model"])
    answer = tools.call(done["url"], "ask")
    assert (answer["version"], answer["secret"]) == ("a$b ${c}", "s3cret")
    assert answer["here"] != answer["there"]
    front, big = (engine.containers.get(f"bentotool-{clean}-{each}-1") for each in ("front", "big-model"))
    assert answer["there"] == big.id[:12]
    assert big.attrs["HostConfig"]["Memory"] == 256 << 20
    assert not front.attrs["HostConfig"]["Memory"]
    assert not big.attrs["HostConfig"]["PortBindings"]  # the entry's port alone is published
    for each in (front, big):
        host = each.attrs["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["NanoCpus"]) == (True, ["ALL"], 1_000_000_000)
        assert host["RestartPolicy"]["Name"] == "always"
        assert "s3cret" not in json.dumps(each.attrs)
    assert "BENTOTOOL_WORKERS=2" in front.attrs["Config"]["Env"]
    file = Path(done["facts"]["folder"]) / "compose.yaml"
    assert "s3cret" not in file.read_text()
    assert "kept$elsewhere" not in file.read_text()
    listed = json.loads(graph.run("--json", "deployment", "show", clean).stdout)
    assert (listed["status"], listed["url"]) == ("ready", done["url"])
    said = graph.run("deployment", "logs", clean).stdout
    assert "front-1" in said
    assert "big-model-1" in said
    again = json.loads(graph.run(*graph.words(clean, "--port", "0", "--diff", "--env", "VERSION=x")).stdout)
    assert "services.front.environment.VERSION" in [
        change["path"] for each in again["resources"] for change in each["changes"]
    ]
    deleted = graph.run("--json", "deployment", "delete", clean)
    assert deleted.returncode == 0, deleted.stderr
    assert there(engine, clean) == set()
    assert not file.parent.exists()


def test_an_update_and_one_that_does_not_work(graph: Graph, engine: Any, clean: str, tools: SimpleNamespace) -> None:
    url = graph.deploy(clean, "--port", "0", "--env", "VERSION=1")["url"]
    file = graph.folder.parent / f"file-{clean}" / "compose.yaml"
    written = file.read_text()
    broken = graph.refused(clean, "--port", "0", "--env", "BROKEN=1")
    assert broken["code"] == "unhealthy"
    assert "BigModel" in broken["message"]
    assert "broken on purpose" in broken["message"]
    assert f"{clean} goes on as it was" in broken["hint"]
    never = graph.refused(clean, "--port", "0", "--env", "NEVER_READY=1", "--timeout", "4")
    assert "is not ready after 4 s" in never["message"]
    assert there(engine, clean) == standing(clean)
    assert tools.call(url, "ask")["version"] == "1"
    assert file.read_text() == written
    after = graph.deploy(clean, "--port", "0", "--env", "VERSION=2")
    assert after["url"] == url
    assert tools.call(url, "ask")["version"] == "2"
    back = json.loads(graph.run("--json", "deployment", "rollback", clean).stdout)
    assert back["revision"] == 3
    assert tools.call(url, "ask")["version"] == "1"
    assert there(engine, clean) == standing(clean)
    assert graph.run("deployment", "delete", clean).returncode == 0


def test_a_first_one_that_does_not_work_leaves_nothing(graph: Graph, engine: Any, clean: str) -> None:
    broken = graph.refused(clean, "--port", "0", "--env", "BROKEN=1")
    assert "broken on purpose" in broken["message"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        error = graph.refused(clean, "--port", port)
    assert (error["code"], error["message"]) == ("conflict", f"port 127.0.0.1:{port} is in use")
    assert there(engine, clean) == set()
    assert not (graph.folder.parent / f"file-{clean}").exists()


def test_ctrl_c_and_two_at_once(graph: Graph, engine: Any, clean: str, tools: SimpleNamespace) -> None:
    url = graph.deploy(clean, "--port", "0", "--env", "VERSION=1")["url"]
    slow = subprocess.Popen(
        graph.command(*graph.words(clean, "--port", "0", "--env", "NEVER_READY=1")), cwd=graph.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for_trial(engine, clean)
        second = graph.refused(clean, "--port", "0", "--env", "VERSION=2")
        assert second["message"] == f"another deployment of {clean} is under way"
        slow.send_signal(signal.SIGINT)
        said = slow.communicate(timeout=120)[1]
    finally:
        slow.kill()
    assert slow.returncode != 0
    assert f"{clean} goes on as it was" in said, said
    assert there(engine, clean) == standing(clean)
    assert tools.call(url, "ask")["version"] == "1"
    assert graph.run("deployment", "delete", clean).returncode == 0


def test_killed_in_the_middle(graph: Graph, engine: Any, clean: str, tools: SimpleNamespace) -> None:
    url = graph.deploy(clean, "--port", "0", "--env", "VERSION=1")["url"]
    killed = subprocess.Popen(
        graph.command(*graph.words(clean, "--port", "0", "--env", "NEVER_READY=1")), cwd=graph.folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_trial(engine, clean)
    finally:
        killed.kill()
        killed.wait(60)
    assert tools.call(url, "ask")["version"] == "1"
    assert graph.deploy(clean, "--port", "0", "--env", "VERSION=2")["url"] == url
    tools.wait_for(lambda: there(engine, clean) == standing(clean), "what the killed one made is still there")
    assert tools.call(url, "ask")["version"] == "2"
    assert graph.run("deployment", "delete", clean).returncode == 0
    assert there(engine, clean) == set()


def test_the_file_alone_and_without_an_engine(graph: Graph, engine: Any, clean: str) -> None:
    done = graph.deploy(clean, "--no-start", "--together")
    assert done["status"] == "stopped"
    file = Path(done["facts"]["folder"]) / "compose.yaml"
    checked = subprocess.run(
        ["docker", "compose", "--file", str(file), "config", "--services"], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert checked.stdout.split() == ["front"]
    assert there(engine, clean) == set()
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    words = graph.words(f"{clean}-other", "--dry-run")
    planned = subprocess.run(
        graph.command(*words), cwd=graph.folder, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    spec = json.loads(planned.stdout)["resources"][0]["spec"]
    assert list(spec["services"]) == ["front", "big-model"]
    assert spec["services"]["front"]["environment"]["BENTOTOOL_DEPENDS"] == "BigModel=http://big-model:3000"
    assert graph.run("deployment", "delete", clean).returncode == 0
    assert not file.exists()


def test_as_sagemaker_starts_it(graph: Graph, engine: Any, clean: str, tools: SimpleNamespace) -> None:
    """``docker run IMAGE serve``, with the variables of the target ``sagemaker``: ``/ping`` and ``/invocations``."""
    import urllib.error
    import urllib.request

    done = graph.deploy(clean, "--no-start")
    container = engine.containers.run(
        done["facts"]["image_name"], "serve", detach=True, ports={"8080/tcp": ("127.0.0.1", 0)},
        environment={"PORT": "8080", "BENTOTOOL_HOST": "0.0.0.0", "BENTOTOOL_PATHS": "/ping=/readyz,/invocations=/ask"},
    )  # fmt: skip
    try:
        tools.wait_for(lambda: container.reload() or container.ports.get("8080/tcp"), "no port")
        url = f"http://127.0.0.1:{container.ports['8080/tcp'][0]['HostPort']}"

        def answers() -> bool:
            with urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
                return bool(answer.status == 200)

        tools.wait_for(answers, "/ping does not answer")
        assert tools.call(url, "invocations")["here"] == container.id[:12]  # the whole graph is in it
    finally:
        container.remove(force=True)
        graph.run("deployment", "delete", clean)
