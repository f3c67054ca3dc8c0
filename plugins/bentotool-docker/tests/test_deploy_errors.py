"""What an engine refuses, or where there is none: one line, the next step, and nothing left behind."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import (
    BentotoolError,
    ConflictError,
    MissingDependencyError,
    NotFoundError,
    RemoteError,
    UsageError,
)
from bentotool.targetspec import DeployBento, Deployment, DeployOptions
from bentotool.testing import check_plugin

pytestmark = pytest.mark.timeout(180)
BENTO = DeployBento("iris", "1", "sha256:" + "0" * 64, python="3.11", platform="linux/amd64")


@pytest.fixture(autouse=True)
def _needs_client(require_package: Callable[[str], None]) -> None:
    require_package("docker")


def options(*pairs: str, name: str = "one", **env: str) -> DeployOptions:
    from bentotool_docker.hooks import bentotool_targets

    from bentotool.deploy.options import option_values

    return DeployOptions(name, option_values(next(iter(bentotool_targets())), pairs), env)


def version_body(*pairs: str, user: str = "65532:65532", local: bool = True, **env: str) -> Any:
    from bentotool_docker.images import Image
    from bentotool_docker.spec import version_body as body

    image = Image("iris:1", "", ("/opt/bentotool/env/bin/python",), (), user, {})
    return body(BENTO, options(*pairs, **env), image, 1, "/run/bentotool/door-1", local=local)


def test_the_plugin_keeps_the_contract() -> None:
    assert "bentotool_targets" in check_plugin("docker").hooks


# -- no engine --------------------------------------------------------------------------------------------------------


def test_no_engine(tmp_path: Path) -> None:
    from bentotool_docker.engine import connect

    with pytest.raises(RemoteError, match="its socket is not there") as caught:
        connect(f"unix://{tmp_path}/none.sock")
    assert "systemctl start docker" in str(caught.value.hint)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(RemoteError, match=r"no Docker engine answers at tcp://.*: connection refused"):
        connect(f"tcp://127.0.0.1:{port}")
    with pytest.raises(UsageError, match="'nonsense://x' is no address of a Docker engine"):
        connect("nonsense://x")


def test_something_else_answers() -> None:
    from bentotool_docker.engine import connect

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"220 welcome to my mail server\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(RemoteError, match="no Docker engine answers") as caught:
            connect(f"tcp://127.0.0.1:{port}", timeout=10)
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ({"ApiVersion": "1.38", "Version": "18.06.3"}, "is too old: Docker 18.06.3, API 1.38"),
        ({"ApiVersion": "1.9", "Version": "1.9.1"}, "is too old: Docker 1.9.1, API 1.9"),
        ({"ApiVersion": "soon"}, "no Docker engine answers at"),
        ({}, "no Docker engine answers at"),
    ],
)
def test_an_engine_of_another_age(version: dict[str, str], said: str) -> None:
    from bentotool_docker.engine import connect

    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(version).encode()
            self.send_response(200 if self.path == "/version" else 400)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(RemoteError, match=re.escape(said)) as caught:
            connect(f"tcp://127.0.0.1:{server.server_address[1]}", timeout=10)
        server.shutdown()
    assert caught.value.message.isprintable()
    assert caught.value.hint


def test_an_engine_behind_ssh_needs_a_package() -> None:
    from bentotool_docker.engine import connect

    if importlib.util.find_spec("paramiko") is None:
        with pytest.raises(MissingDependencyError) as caught:
            connect("ssh://nobody@127.0.0.1:1")
        assert caught.value.hint == "pip install 'docker[ssh]'"
    else:
        with pytest.raises(RemoteError, match="no Docker engine answers"):
            connect("ssh://nobody@127.0.0.1:1")


def test_a_context_says_how_its_engine_is_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_tool: Callable[[str], str]
) -> None:
    """The current context's address, and its certificates: TLS is spoken where it has any."""
    from bentotool_docker.engine import connect, engine_url

    openssl = require_tool("openssl")
    spoken: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        identity = hashlib.sha256(b"far").hexdigest()
        meta, tls = (tmp_path / "contexts" / kind / identity for kind in ("meta", "tls"))
        meta.mkdir(parents=True)
        (tls / "docker").mkdir(parents=True)
        made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        files = ["-keyout", str(tls / "docker" / "key.pem"), "-out", str(tls / "docker" / "cert.pem")]
        subprocess.run([*made, *files, "-subj", "/CN=far"], check=True, capture_output=True, timeout=60)
        shutil.copy(tls / "docker" / "cert.pem", tls / "docker" / "ca.pem")
        endpoint = {"Host": url, "SkipTLSVerify": True}
        (meta / "meta.json").write_text(json.dumps({"Name": "far", "Metadata": {}, "Endpoints": {"docker": endpoint}}))
        (tmp_path / "config.json").write_text('{"currentContext": "far"}')
        for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                spoken.append(connection.recv(3))

        asked = threading.Thread(target=answer, daemon=True)
        asked.start()
        assert engine_url(None) == url
        with pytest.raises(RemoteError, match="no Docker engine answers"):
            connect(url, timeout=5)
        asked.join(10)
    assert spoken[0][:1] == b"\x16"  # a handshake of TLS


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_socket_that_may_not_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    code = (
        "import os, sys\n"
        "from bentotool_docker.engine import connect\n"
        "from bentotool.errors import BentotoolError\n"
        "import docker, requests\n"
        "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
        "try: connect('unix://' + sys.argv[1])\n"
        "except BentotoolError as error: print(error.code, error.message, error.hint, sep='\\n')\n"
    )
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o000)
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    kind, message, hint = done.stdout.splitlines()
    assert kind == "authentication", done.stderr
    assert message == f"the Docker engine at unix://{path} may not be asked: permission denied"
    assert "usermod -aG docker" in hint


def test_a_plan_needs_no_engine(tmp_path: Path) -> None:
    from bentotool_docker.target import DockerTarget

    plan = DockerTarget().plan(BENTO, options(f"engine=unix://{tmp_path}/none.sock", "port=8080"))
    assert plan.url == "http://127.0.0.1:8080"
    assert [(each.kind, each.action) for each in plan.resources] == [("volume", "create")] + [
        ("container", "create")
    ] * 2
    assert "no Docker engine answers" in plan.blind
    far = DockerTarget().plan(BENTO, options(f"engine=unix://{tmp_path}/none.sock", "port=8080", "address=[::1]"))
    assert far.url == "http://[::1]:8080"
    assert json.loads(json.dumps(plan.to_dict()))["status"] == "planned"


def test_a_name_is_one_on_one_engine(tmp_path: Path) -> None:
    from bentotool_docker.target import DockerTarget

    there = Deployment("one", "docker", "ready", "", facts={"engine": f"unix://{tmp_path}/a.sock"})
    asked = replace(options(f"engine=unix://{tmp_path}/b.sock"), previous=there)
    with pytest.raises(ConflictError, match=r"one is deployed on the engine at unix://.*/a.sock") as caught:
        DockerTarget().plan(BENTO, asked)
    assert "--engine unix://" in str(caught.value.hint)
    (tmp_path / "b.sock").symlink_to(tmp_path / "a.sock")
    assert DockerTarget().plan(BENTO, asked).blind


@pytest.mark.parametrize(
    ("status", "told"), [("restarting", "unhealthy"), ("exited", "stopped"), ("paused", "stopped")]
)
def test_a_version_that_does_not_run(status: str, told: str) -> None:
    from bentotool_docker.standing import Standing, state_of

    def box(status: str) -> Any:
        said = b"starting\nerror: no such table\nhint: make it\n"
        return SimpleNamespace(status=status, name="bentotool-one-1", labels={}, logs=lambda tail: said)

    standing = Standing("one", (box("running"),), (box(status),))
    assert state_of(standing) == (told, f"bentotool-one-1 is {status}: no such table")


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_the_body_of_a_container() -> None:
    body = version_body("cpu=1.5", "memory=512m", "gpus=0,GPU-7", "restart=no", LEVEL="info")
    host = body["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["ReadonlyRootfs"]) == (1_500_000_000, 512 << 20, True)
    assert host["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], "DeviceIDs": ["0", "GPU-7"]}]
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"])
    assert "LEVEL=info" in body["Env"]
    assert body["StopTimeout"] == 46
    assert version_body("gpus=all")["HostConfig"]["DeviceRequests"][0]["Count"] == -1
    assert version_body("gpus=2")["HostConfig"]["DeviceRequests"][0]["Count"] == 2


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("memory=lots",), "memory 'lots' is not a size"),
        (("memory=1m",), "memory '1m' is less than the engine gives"),
        (("tmp=0",), "tmp '0' is not a size"),
        (("secret=token",), "secret 'token' is not of the form NAME=FILE"),
        (("secret=../x=/etc/hosts",), "is not of the form NAME=FILE"),
        (("secret=a=/etc/hosts", "secret=a=/etc/hosts"), "secret a is given twice"),
        (("secret=a=/no/such/file",), "secret a: no file"),
    ],
)
def test_values_that_no_container_can_have(pairs: tuple[str, ...], said: str) -> None:
    with pytest.raises((UsageError, NotFoundError)) as caught:
        version_body(*pairs)
    assert said in caught.value.message
    assert caught.value.hint


def test_variables_that_the_deployment_sets_itself() -> None:
    with pytest.raises(UsageError, match="--env PORT is set by the deployment itself"):
        version_body(PORT="1")


def test_a_secret_of_this_machine_is_nothing_to_an_engine_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("x")
    with pytest.raises(UsageError, match="the engine runs elsewhere"):
        version_body(f"secret=token={path}", local=False)


# -- what an engine refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "kind", "told"),
    [
        (500, "write /var/lib/docker/x: no space left on device", BentotoolError, "no space left on the engine's disk"),
        (500, "Bind for 127.0.0.1:80 failed: port is already allocated", ConflictError, "port a:80 is in use"),
        (500, "listen tcp4 127.0.0.1:80: bind: address already in use", ConflictError, "port a:80 is in use"),
        (500, "cannot assign requested address", UsageError, "the engine's machine has no address a:80"),
        (500, 'could not select device driver "" with capabilities: [[gpu]]', BentotoolError, "no GPUs to give"),
        (409, 'Conflict. The container name "/x" is already in use', ConflictError, "is already in use"),
        (400, "invalid user", UsageError, "do it: invalid user"),
        (500, "line\none\x1b[2J and\tmore", RemoteError, "do it: line one [2J and more"),
    ],
)
def test_failures_of_the_engine_in_a_line(status: int, said: str, kind: type[BentotoolError], told: str) -> None:
    import docker.errors
    import requests
    from bentotool_docker.engine import explained

    response = requests.Response()
    response.status_code = status
    with pytest.raises(kind) as caught, explained("do it", port="a:80"):
        raise docker.errors.APIError("refused", response, said)
    assert told in caught.value.message
    assert caught.value.message.isprintable()


def test_an_image_for_another_platform_is_not_run() -> None:
    from bentotool_docker.images import DIGEST, image_of

    def image(identity: str, architecture: str) -> SimpleNamespace:
        config = {"Labels": {DIGEST: BENTO.digest}}
        return SimpleNamespace(id=identity, attrs={"Config": config, "Architecture": architecture})

    def engine(tagged: SimpleNamespace, *others: SimpleNamespace) -> Any:
        there = {BENTO.tag: tagged, **{each.id: each for each in (tagged, *others)}}
        images = SimpleNamespace(get=there.__getitem__, list=lambda filters: [tagged, *others])
        return SimpleNamespace(images=images, version=lambda: {"Arch": "x86_64"})

    arm, own, unsaid = image("arm", "arm64"), image("own", "amd64"), image("unsaid", "")
    for client, expected in (
        (engine(own, arm), "own"), (engine(arm, own), "own"), (engine(arm), None), (engine(unsaid), "unsaid"),
    ):  # fmt: skip
        found = image_of(client, BENTO)
        assert (found.id if found is not None else None) == expected


def test_an_image_that_does_not_load() -> None:
    import docker.errors
    from bentotool_docker.engine import explained

    with pytest.raises(BentotoolError, match="load it: no space left on the engine's disk"), explained("load it"):
        raise docker.errors.ImageLoadError("write /var/lib/docker/x: no space left on device")


def test_gpus_that_the_engine_has_not(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    if any(kind in str(engine.info().get(key)) for key in ("Runtimes", "CDISpecDirs") for kind in ("nvidia",)):
        pytest.skip("this engine may have GPUs")
    failed = project.deploy(name, "--port", "0", "--gpus", "all", ok=False)
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert failed.status == 1
    assert error["message"].endswith("the engine has no GPUs to give")
    assert "leave --gpus out" in error["hint"]
    assert tools.made(engine, name) == set()


def test_an_address_that_is_none(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    for address, said in (("localhost", "is no IP address"), ("192.0.2.1", "has no address 192.0.2.1:0")):
        failed = project.deploy(name, "--port", "0", "--address", address, ok=False)
        assert failed.status == 2
        assert json.loads(failed.err.splitlines()[-1])["error"]["message"].endswith(said)
        assert tools.made(engine, name) == set()


def test_a_port_that_is_none(project: Any) -> None:
    failed = project.deploy("unmade", "--port", "99999", ok=False)
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert (failed.status, error["hint"]) == (2, "--port INTEGER: Port to publish, 0 for a free one")


def test_an_image_that_is_nowhere(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    failed = project.deploy(name, "--image", "no-such-image:1", "--pull", "never", ok=False)
    assert failed.status == 3
    assert "the engine has no image no-such-image:1" in failed.err
    failed = project.deploy(name, "--image", "127.0.0.1:1/no-such-image:1", ok=False)
    assert failed.status in (3, 5)
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert error["message"].startswith("pull 127.0.0.1:1/no-such-image:1: ")
    assert "docker pull 127.0.0.1:1/no-such-image:1" in error["hint"]
    assert tools.made(engine, name) == set()


def test_an_image_without_our_runtime(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    failed = project.deploy(name, "--port", "0", "--image", "python:3.11-slim", ok=False)
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert (failed.status, error["message"]) == (1, "image python:3.11-slim has no runtime that can be lent a port")
    assert tools.made(engine, name) == set()
    empty = engine.api.import_image_from_data(b"\0" * 1024, repository="no-python", tag=name, changes=['CMD ["/x"]'])
    try:
        failed = project.deploy(name, "--port", "0", "--image", f"no-python:{name}", ok=False)
        error = json.loads(failed.err.splitlines()[-1])["error"]
        assert error["message"] == f"image no-python:{name} has no runtime that can be lent a port", empty
        assert tools.made(engine, name) == set()
    finally:
        engine.images.remove(f"no-python:{name}")


def test_a_volume_of_another(project: Any, engine: Any, name: str) -> None:
    volume = engine.volumes.create(f"bentotool-{name}")
    try:
        failed = project.deploy(name, "--port", "0", ok=False)
        assert "there is a volume" in failed.err
        volume.reload()
    finally:
        volume.remove()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--network", "nowhere"), 3, "network nowhere not found"),
        (("--user", "nobody-here"), 5, "nobody-here"),
        (("--cpu", "5000"), 2, "CPUs"),
    ],
)
def test_what_the_engine_does_not_have(
    project: Any, engine: Any, name: str, tools: SimpleNamespace, options: tuple[str, ...], status: int, said: str
) -> None:
    failed = project.deploy(name, "--port", "0", *options, ok=False)
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert (failed.status, said in error["message"]) == (status, True), error
    assert error["hint"]
    assert tools.made(engine, name) == set()


def test_a_container_of_another(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    other = engine.containers.create("python:3.11-slim", "true", name=f"bentotool-{name}-1")
    try:
        failed = project.deploy(name, "--port", "0", ok=False)
        error = json.loads(failed.err.splitlines()[-1])["error"]
        assert (failed.status, error["code"]) == (1, "conflict")
        assert error["message"] == f"there is a container bentotool-{name}-1 that is not of this deployment"
        assert {each for each in tools.made(engine, name) if "door" in each} == set()
        other.reload()
    finally:
        other.remove()


def test_too_little_memory(project: Any, engine: Any, name: str, tools: SimpleNamespace) -> None:
    failed = project.deploy(name, "--port", "0", "--memory", "12m", ok=False)
    assert failed.status == 1
    error = json.loads(failed.err.splitlines()[-1])["error"]
    assert (error["code"], "ran out of memory" in error["message"]) == ("unhealthy", True), error
    assert tools.made(engine, name) == set()
