"""The buildkit builder with a real engine: images are built, run and asked."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BASE = os.environ.get("BENTOTOOL_TEST_BASE_IMAGE", "python:3.11-slim")
HOME = Path.home()
LIMIT = 300.0
CANARY = "canary-of-the-index"
CA_CANARY = "# canary-of-the-bundle"
HOSTILE = (
    "a;b && $(touch /evil)",
    "`touch /evil`",
    "a\\",
    "\\\"'",
    "${HOME} $PATH",
    "a#b",
    "<<EOF",
    "{{ 7*7 }}",
    '"] RUN',
)
SERVICE = """
import asyncio, os, pathlib
import bentotool

with bentotool.importing():
    import secretpkg

@bentotool.service
class Probe:
    @bentotool.api
    def facts(self) -> dict[str, str]:
        found = {name: value for name, value in os.environ.items() if name.startswith("HOSTILE")}
        for name in ("said", "three", "after", "evil"):
            path = pathlib.Path("/", name)
            found[name] = path.read_text().strip() if path.exists() else "absent"
        return {**found, "uid": str(os.getuid()), "word": secretpkg.WORD}

    @bentotool.api
    async def slow(self, seconds: float) -> str:
        pathlib.Path("/tmp/started").touch()
        await asyncio.sleep(seconds)
        return "done"
"""
CONFIG = {
    "service": "service:Probe",
    "name": "built",
    "python": {"version": "3.11", "packages": ["secretpkg"]},
    "docker": {
        "env": {f"HOSTILE{index}": value for index, value in enumerate(HOSTILE)},
        "system_packages": ["libgomp1"],
        "commands": ["echo '$(touch /evil) <<EOF' > /said"],
        "setup_script": "setup.sh",
        "post_commands": ["python -c 'import secretpkg; print(secretpkg.WORD)' > /after"],
    },
}


def wheel() -> bytes:
    files = {
        "secretpkg.py": b"WORD = 'found'\n",
        "secretpkg-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: secretpkg\nVersion: 1.0\n",
        "secretpkg-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    files["secretpkg-1.0.dist-info/RECORD"] = ("".join(rows) + "secretpkg-1.0.dist-info/RECORD,,\n").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def index(engine: Any) -> Iterator[str]:
    """A package index that asks for a password, at an address that containers reach."""
    content = wheel()
    page = f'<a href="/secretpkg-1.0-py3-none-any.whl#sha256={hashlib.sha256(content).hexdigest()}">secretpkg-1.0</a>'
    expected = "Basic " + base64.b64encode(f"ada:{CANARY}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/simple/secretpkg/": page.encode(), "/secretpkg-1.0-py3-none-any.whl": content}
            allowed = self.headers.get("authorization") == expected
            body = known.get(self.path, b"") if allowed else b""
            self.send_response(401 if not allowed else 200 if body else 404)
            if not allowed:
                self.send_header("www-authenticate", "Basic")
            self.send_header("content-type", "text/html" if self.path.endswith("/") else "application/octet-stream")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # http.server looks for this name

        def log_message(self, *_: object) -> None:
            pass

    gateway = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    server = ThreadingHTTPServer((gateway, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://ada:{CANARY}@{gateway}:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


class Builds:
    """Projects in one store, and the command line on them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.store, self.environment = folder, folder / "store", environment

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bentotool", "--store", str(self.store), *words],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def made(self, *words: str, **environment: str) -> dict[str, Any]:
        done = self.run("--json", *words, **environment)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def bento(self, name: str, config: dict[str, Any], files: dict[str, str]) -> str:
        project = self.folder / name
        project.mkdir(exist_ok=True)
        (project / "bentofile.yaml").write_text(json.dumps({**config, "name": name}))
        for path, text in files.items():
            (project / path).write_text(text)
            (project / path).chmod(0o755)
        return str(self.made("build", str(project))["tag"])

    def containerize(self, tag: str, *words: str) -> dict[str, Any]:
        return self.made("containerize", tag, "--base", BASE, *words)["images"][0]

    def config(self, image: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blob(json.loads(self.blob(image["digest"]))["config"]["digest"]))
        return found

    def blob(self, digest: str) -> bytes:
        return (self.store / "blobs" / "sha256" / digest[7:]).read_bytes()


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode not in (0, 70), done.stderr
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))


SIMPLE = """
import bentotool

@bentotool.service
class Simple:
    @bentotool.api
    def hi(self) -> str:
        return 'hi'
"""
PLAIN = {"service": "service:Simple", "python": {"version": "3.11"}}


@pytest.fixture(scope="module")
def builds(engine: Any, index: str, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    import docker.errors

    try:
        engine.images.get(BASE)
    except docker.errors.ImageNotFound:
        pytest.fail(f"needs the image {BASE} on the engine", pytrace=False)
    folder = tmp_path_factory.mktemp("builds")
    settings = folder / "docker"
    (settings / "cli-plugins").mkdir(parents=True)
    own = HOME / ".docker" / "cli-plugins" / "docker-buildx"
    if own.exists():
        (settings / "cli-plugins" / "docker-buildx").symlink_to(own.resolve())
    (folder / "home").mkdir()
    environment = {**os.environ, "HOME": str(folder / "home"), "DOCKER_CONFIG": str(settings), "UV_INDEX": index}
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or HOME / ".cache") / "uv")
    return Builds(folder, {**environment, "UV_CACHE_DIR": str(cache)})


@pytest.fixture(scope="module")
def built(builds: Builds, engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A Bento that asks for everything, and its image in the engine."""
    import ssl

    tag = builds.bento("built", CONFIG, {"service.py": SERVICE, "setup.sh": "echo three > /three\n"})
    bundle = tmp_path_factory.mktemp("ca") / "bundle.pem"
    paths = ssl.get_default_verify_paths()
    bundle.write_text(f"{CA_CANARY}\n" + Path(str(paths.cafile)).read_text())
    image = builds.containerize(tag, "--load", "--ca-bundle", str(bundle))
    yield SimpleNamespace(tag=tag, image=image)
    engine.images.remove(tag, force=True)


@contextlib.contextmanager
def running(engine: Any, tag: str, wait_for: Callable[..., None], **options: Any) -> Iterator[tuple[Any, str]]:
    import urllib.request

    container = engine.containers.run(
        tag, detach=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], ports={"3000/tcp": ("127.0.0.1", None)},
        **options,
    )  # fmt: skip
    try:
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["3000/tcp"][0]["HostPort"]
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
                return bool(answer.status == 200)

        wait_for(ready, "the service is not ready")
        yield container, url
    finally:
        container.remove(force=True, v=True)


def test_it_runs_read_only_and_as_nobody(engine: Any, built: Any, tools: Any) -> None:
    with running(engine, built.tag, tools.wait_for, read_only=True) as (_, url):
        facts = tools.call(url, "facts")
    assert facts["uid"] == "65532"
    assert facts["said"] == "$(touch /evil) <<EOF"
    assert (facts["three"], facts["after"], facts["word"], facts["evil"]) == ("three", "found", "found", "absent")
    assert [facts[f"HOSTILE{index}"] for index in range(len(HOSTILE))] == list(HOSTILE)


def test_a_request_in_flight_is_answered_when_it_is_stopped(engine: Any, built: Any, tools: Any) -> None:
    with running(engine, built.tag, tools.wait_for) as (container, url):
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(tools.call(url, "slow", seconds=2.0)))
        asking.start()
        tools.wait_for(lambda: container.exec_run(["test", "-e", "/tmp/started"]).exit_code == 0, "it did not start")
        container.stop(timeout=60)
        asking.join()
        assert answers == ["done"]
        assert container.wait(timeout=60)["StatusCode"] == 0


def names_and_bytes(engine: Any, tag: str) -> tuple[set[str], bytes]:
    """All paths of an image's layers, and all its bytes."""
    data = b"".join(engine.images.get(tag).save())
    names: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for part in json.loads(archive.extractfile("manifest.json").read())[0]["Layers"]:  # type: ignore[union-attr]
            content = archive.extractfile(part).read()  # type: ignore[union-attr]
            data += content
            with tarfile.open(fileobj=io.BytesIO(content)) as layer:
                names |= {member.name for member in layer if not member.isdir()}
    return names, data


def test_what_an_image_does_not_hold(engine: Any, built: Any) -> None:
    names, data = names_and_bytes(engine, built.tag)
    before, _ = names_and_bytes(engine, BASE)
    assert CANARY.encode() not in data
    assert base64.b64encode(f"ada:{CANARY}".encode()) not in data
    assert CA_CANARY.encode() not in data
    added = {name for name in names - before if not name.rpartition("/")[2].startswith(".wh.")}
    odd = ("gcc", "g++", "uv", "bento.lock", "bentotool-ca", "bentotool-index", "setup.sh", "before-0")
    assert not {name for name in added if name.rpartition("/")[2] in odd} - {"home/bento/app/setup.sh"}
    assert not {
        name for name in added if name.startswith(("var/cache/bentotool", "var/lib/apt/lists", "root/", "tmp/"))
    }
    assert not {name for name in added if name.endswith((".pyc", ".deb"))}


def test_nothing_secret_in_the_store(builds: Builds, built: Any) -> None:
    for path in builds.store.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def test_an_edit_of_code_makes_one_layer(builds: Builds, built: Any) -> None:
    tag = builds.bento("built", CONFIG, {"service.py": SERVICE + "\n# edited\n"})
    image = builds.containerize(tag)
    before, after = ({layer["digest"]: layer for layer in each["layers"]} for each in (built.image, image))
    assert not any(layer["cached"] for layer in before.values() if layer["kind"] == "environment")
    new = [after[digest] for digest in after.keys() - before.keys()]
    assert [layer["kind"] for layer in new] == ["code"]
    assert new[0]["size"] < 1_000_000
    assert all(layer["cached"] for layer in after.values() if layer["kind"] == "environment")
    assert {layer["kind"] for layer in after.values()} == {"base", "environment", "runtime", "code"}


@pytest.fixture(scope="module")
def simple(builds: Builds) -> str:
    return builds.bento("simple", PLAIN, {"service.py": SIMPLE})


@pytest.fixture(scope="module")
def archive(engine: Any, builds: Builds) -> str:
    """The base image as a file."""
    target = builds.folder / "base.tar"
    with target.open("wb") as file:
        for piece in engine.images.get(BASE).save(named=True):
            file.write(piece)
    return f"oci-archive:{target}"


def test_both_builders_images_start_alike(builds: Builds, simple: str, archive: str, engine: Any) -> None:
    ours, other = (
        builds.config(builds.made("containerize", simple, "--base", archive, "--builder", name)["images"][0])
        for name in ("buildkit", "oci")
    )
    loaded = [tag for each in engine.images.list() for tag in each.tags if tag.startswith("localhost/bentotool-base:")]
    assert loaded
    for tag in loaded:
        engine.images.remove(tag)  # a name of it, of several
    assert ours["config"] == other["config"]
    assert ours["architecture"] == other["architecture"]


def test_a_failing_script_says_its_last_lines(builds: Builds) -> None:
    config = {**PLAIN, "docker": {"setup_script": "setup.sh"}}
    files = {"service.py": SIMPLE, "setup.sh": "#!/bin/sh\necho first\necho no more wishes >&2\nexit 3\n"}
    tag = builds.bento("failing", config, files)
    found = error(builds.run("containerize", tag, "--base", BASE))
    assert found == f"error: script setup.sh of the image of {tag} failed (exit status 3): first | no more wishes"


def test_a_base_that_is_not_there(builds: Builds, simple: str) -> None:
    done = builds.run("containerize", simple, "--builder", "buildkit", "--base", "localhost:1/none:1")
    assert "registry localhost:1 did not answer" in error(done)
    assert done.returncode == 5
    done = builds.run("containerize", simple, "--builder", "buildkit", "--base", "localhost:1/none:1", "--offline")
    assert "base image localhost:1/none:1 is not in the engine" in error(done)


def test_no_engine(builds: Builds, simple: str) -> None:
    words = ("containerize", simple, "--builder", "buildkit", "--base", BASE)
    done = builds.run(*words, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert error(done).startswith("error: no engine answers docker: ")
    assert done.returncode == 5
    assert "are all missing" in error(builds.run(*words, PATH=str(builds.folder)))


class Quiet(contextlib.AbstractContextManager["Quiet"]):
    """Progress that nobody sees."""

    def __exit__(self, *_: object) -> None:
        pass

    def part(self, name: str, total: int) -> Quiet:
        return self

    def advance(self, count: int) -> None:
        pass


@pytest.fixture
def request_of(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A builder's request for a Bento, in this process."""
    from bentotool.build.bentos import BentoStore
    from bentotool.images.plan import plan_image
    from bentotool.imagespec import ImageRequest
    from bentotool.oci.layout import Layout

    for name in ("HOME", "DOCKER_CONFIG", "UV_CACHE_DIR"):
        monkeypatch.setenv(name, builds.environment[name])

    def make(tag: str, **changes: Any) -> Any:
        from dataclasses import replace

        layout = Layout(builds.store)
        plan = plan_image(layout, BentoStore(layout).get(tag), "linux/amd64", base=BASE)
        return ImageRequest((replace(plan, **changes),), layout, lambda host: None, lambda total, label: Quiet())  # type: ignore[arg-type,return-value]

    return make


def test_a_base_without_that_python(simple: str, request_of: Callable[..., Any]) -> None:
    from bentotool_docker.builder import BuildkitBuilder

    from bentotool.errors import BuildError

    with pytest.raises(BuildError, match=r"base image .* has no Python 3\.99"):
        BuildkitBuilder().build(request_of(simple, python="3.99"))


def test_docker_without_buildx(
    builds: Builds, simple: str, request_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import bentotool_docker.builder as module
    from bentotool_docker.programs import PROGRAMS

    plain = next(program for program in PROGRAMS if program.name == "docker")
    monkeypatch.setattr(module, "find_program", lambda name: plain)
    (image,) = module.BuildkitBuilder().build(request_of(simple, steps=({"run": "echo one > /one"},)))
    config = builds.config(image.to_dict())
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"][0] == "/opt/bentotool/env/bin/python"
    assert [layer.kind for layer in image.layers][-2:] == ["runtime", "code"]


def test_the_context_builds_elsewhere(builds: Builds, simple: str, engine: Any, tools: Any) -> None:
    folder = builds.folder / "context"
    found = builds.made("containerize", simple, "--base", BASE, "--context", str(folder))
    assert (folder / "Dockerfile").read_text() == found["dockerfile"]
    command = ["docker", "buildx", "build", "--quiet", "--load", "--tag", "context-of:test", str(folder)]
    done = subprocess.run(command, env=builds.environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    with running(engine, "context-of:test", tools.wait_for, read_only=True) as (_, url):
        assert tools.call(url, "hi") == "hi"
    engine.images.remove("context-of:test", force=True)
    assert "holds something already" in error(builds.run("containerize", simple, "--context", str(folder)))


def test_a_dockerfile_is_printed(builds: Builds, simple: str) -> None:
    done = builds.run("containerize", simple, "--print-dockerfile")
    assert done.returncode == 0
    assert done.stdout.startswith("# Made by bentotool")
    assert done.stdout.endswith('"/home/bento"]\n')
    assert CANARY not in done.stdout
