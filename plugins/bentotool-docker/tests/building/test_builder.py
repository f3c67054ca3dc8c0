"""The buildkit builder with a real engine: images are built, run and asked."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)  # engines share the machine with other tests
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


@pytest.fixture(scope="module")
def built(builds: Any, engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A Bento that asks for everything, and its image in the engine."""
    import ssl

    tag = builds.bento("built", CONFIG, {"service.py": SERVICE, "setup.sh": "echo three > /three\n"})
    bundle = tmp_path_factory.mktemp("ca") / "bundle.pem"
    paths = ssl.get_default_verify_paths()
    bundle.write_text(f"{CA_CANARY}\n" + Path(str(paths.cafile)).read_text())
    image = builds.containerize(tag, "--load", "--ca-bundle", str(bundle))
    yield SimpleNamespace(tag=tag, image=image)
    engine.images.remove(tag, force=True)


def test_it_runs_read_only_and_as_nobody(kit: Any, engine: Any, built: Any, tools: Any) -> None:
    with kit.running(engine, built.tag, tools.wait_for, read_only=True) as (_, url):
        facts = tools.call(url, "facts")
    assert facts["uid"] == "65532"
    assert facts["said"] == "$(touch /evil) <<EOF"
    assert (facts["three"], facts["after"], facts["word"], facts["evil"]) == ("three", "found", "found", "absent")
    assert [facts[f"HOSTILE{index}"] for index in range(len(HOSTILE))] == list(HOSTILE)


def test_a_request_in_flight_is_answered_when_it_is_stopped(kit: Any, engine: Any, built: Any, tools: Any) -> None:
    with kit.running(engine, built.tag, tools.wait_for) as (container, url):
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(tools.call(url, "slow", seconds=2.0)))
        asking.start()
        tools.wait_for(lambda: container.exec_run(["test", "-e", "/tmp/started"]).exit_code == 0, "it did not start")
        container.stop(timeout=60)
        asking.join()
        assert answers == ["done"]
        assert container.wait(timeout=60)["StatusCode"] == 0


def test_what_an_image_does_not_hold(kit: Any, engine: Any, built: Any) -> None:
    names, data = kit.names_and_bytes(engine, built.tag)
    before, _ = kit.names_and_bytes(engine, kit.BASE)
    assert kit.CANARY.encode() not in data
    assert base64.b64encode(f"ada:{kit.CANARY}".encode()) not in data
    assert CA_CANARY.encode() not in data
    added = {name for name in names - before if not name.rpartition("/")[2].startswith(".wh.")}
    odd = ("gcc", "g++", "uv", "bento.lock", "bentotool-ca", "bentotool-index", "setup.sh", "before-0")
    assert not {name for name in added if name.rpartition("/")[2] in odd} - {"home/bento/app/setup.sh"}
    assert not {
        name for name in added if name.startswith(("var/cache/bentotool", "var/lib/apt/lists", "root/", "tmp/"))
    }
    assert not {name for name in added if name.endswith((".pyc", ".deb"))}


def test_nothing_secret_in_the_store(kit: Any, builds: Any, built: Any) -> None:
    for path in builds.store.rglob("*"):
        if path.is_file():
            assert kit.CANARY.encode() not in path.read_bytes(), path


def test_an_edit_of_code_makes_one_layer(builds: Any, built: Any) -> None:
    tag = builds.bento("built", CONFIG, {"service.py": SERVICE + "\n# edited\n"})
    image = builds.containerize(tag)
    before, after = ({layer["digest"]: layer for layer in each["layers"]} for each in (built.image, image))
    assert not any(layer["cached"] for layer in before.values() if layer["kind"] == "environment")
    new = [after[digest] for digest in after.keys() - before.keys()]
    assert [layer["kind"] for layer in new] == ["code"]
    assert new[0]["size"] < 1_000_000
    assert all(layer["cached"] for layer in after.values() if layer["kind"] == "environment")
    assert {layer["kind"] for layer in after.values()} == {"base", "environment", "runtime", "code"}


def test_both_builders_images_start_alike(builds: Any, simple: str, archive: str, engine: Any) -> None:
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


def test_a_failing_script_says_its_last_lines(kit: Any, builds: Any) -> None:
    config = {**kit.PLAIN, "docker": {"setup_script": "setup.sh"}}
    files = {"service.py": kit.SIMPLE, "setup.sh": "#!/bin/sh\necho first\necho no more wishes >&2\nexit 3\n"}
    tag = builds.bento("failing", config, files)
    found = kit.error(builds.run("containerize", tag, "--base", kit.BASE))
    start, _, said = found.rpartition(": ")
    assert start == f"error: script setup.sh of the image of {tag} failed (exit status 3)"
    assert sorted(said.split(" | ")) == ["first", "no more wishes"]  # engines read two pipes, in no certain order


def test_a_base_that_is_not_there(kit: Any, builds: Any, simple: str) -> None:
    done = builds.run("containerize", simple, "--builder", "buildkit", "--base", "localhost:1/none:1")
    assert "registry localhost:1 did not answer" in kit.error(done)
    assert done.returncode == 5
    done = builds.run("containerize", simple, "--builder", "buildkit", "--base", "localhost:1/none:1", "--offline")
    assert "base image localhost:1/none:1 is not in the engine" in kit.error(done)


def test_no_engine(kit: Any, builds: Any, simple: str) -> None:
    words = ("containerize", simple, "--builder", "buildkit", "--base", kit.BASE)
    done = builds.run(*words, "--engine", "docker", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert kit.error(done).startswith("error: no engine answers docker: ")
    assert done.returncode == 5
    assert "are all missing" in kit.error(builds.run(*words, PATH=str(builds.folder)))


class Quiet(contextlib.AbstractContextManager["Quiet"]):
    """Progress that nobody sees."""

    def __exit__(self, *_: object) -> None:
        pass

    def part(self, name: str, total: int) -> Quiet:
        return self

    def advance(self, count: int) -> None:
        pass


@pytest.fixture
def request_of(kit: Any, builds: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A builder's request for a Bento, in this process."""
    from bentotool.build.bentos import BentoStore
    from bentotool.errors import RemoteError
    from bentotool.images.plan import plan_image
    from bentotool.imagespec import ImageRequest
    from bentotool.oci.layout import Layout

    for name in ("HOME", "DOCKER_CONFIG", "UV_CACHE_DIR"):
        monkeypatch.setenv(name, builds.environment[name])

    def refuse(host: str) -> Any:
        raise RemoteError(f"registry {host} did not answer")

    def make(tag: str, **changes: Any) -> Any:
        from dataclasses import replace

        layout = Layout(builds.store)
        plan = plan_image(layout, BentoStore(layout).get(tag), "linux/amd64", base=kit.BASE)
        return ImageRequest((replace(plan, **changes),), layout, refuse, lambda total, label: Quiet())  # type: ignore[arg-type,return-value]

    return make


def test_a_base_without_that_python(simple: str, request_of: Callable[..., Any]) -> None:
    from bentotool_docker.builder import BuildkitBuilder

    from bentotool.errors import BuildError

    with pytest.raises(BuildError, match=r"base image .* has no Python 3\.99"):
        BuildkitBuilder().build(request_of(simple, python="3.99"))


def test_the_base_that_is_named_is_the_distributions(kit: Any, builds: Any, engine: Any) -> None:
    tag = builds.bento("ubuntu", {**kit.PLAIN, "docker": {"distro": "ubuntu"}}, {"service.py": kit.SIMPLE})
    engine.images.get(kit.BASE).tag("ubuntu", "24.04")  # stands in for it, and has that Python
    try:
        image = builds.made("containerize", tag)["images"][0]
    finally:
        engine.images.remove("ubuntu:24.04")
    assert image["base"] == "docker.io/library/ubuntu:24.04"
    annotations = json.loads(builds.blob(image["digest"]))["annotations"]
    assert annotations["org.opencontainers.image.base.name"] == image["base"]


def test_docker_without_buildx(
    builds: Any, simple: str, request_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
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


def test_the_context_builds_elsewhere(kit: Any, builds: Any, simple: str, engine: Any, tools: Any) -> None:
    folder = builds.folder / "context"
    found = builds.made("containerize", simple, "--base", kit.BASE, "--context", str(folder))
    assert (folder / "Dockerfile").read_text() == found["dockerfile"]
    command = ["docker", "buildx", "build", "--quiet", "--load", "--tag", "context-of:test", str(folder)]
    done = subprocess.run(
        command, env=builds.environment, capture_output=True, text=True, timeout=kit.LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    with kit.running(engine, "context-of:test", tools.wait_for, read_only=True) as (_, url):
        assert tools.call(url, "hi") == "hi"
    engine.images.remove("context-of:test", force=True)
    assert "holds something already" in kit.error(builds.run("containerize", simple, "--context", str(folder)))


def test_a_dockerfile_is_printed(kit: Any, builds: Any, simple: str) -> None:
    done = builds.run("containerize", simple, "--print-dockerfile")
    assert done.returncode == 0
    assert done.stdout.startswith("# Made by bentotool")
    assert done.stdout.endswith('"/home/bento"]\n')
    assert kit.CANARY not in done.stdout
