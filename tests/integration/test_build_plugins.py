"""Plugins that take part in a build: real distributions on the path of ``bentotool build`` and of what serves."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentotool.build.configfile import load_config
from bentotool.build.lock import inputs_digest
from bentotool.build.requirements import gather

SERVICE = """
import os
import bentotool

@bentotool.service
class Double:
    @bentotool.api
    def tenant(self) -> str:
        return os.environ["TENANT"] + open(os.path.join(os.path.dirname(__file__), "tenant.txt")).read()
"""
HOOKS = """
import json
import os
from bentotool.hookspecs import hookimpl
from bentotool.interfaces import PlanAddition

MIDDLEWARE = '''
class Header:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def sending(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-tenant", b"acme")]}
            await send(message)
        await self.app(scope, receive, sending)
'''

@hookimpl
def bentotool_plan_build(config, models):
    files = {"tenant.txt": b" of a plugin", "tenancy.py": MIDDLEWARE.encode()}
    return PlanAddition(files=files, env={"TENANT": "acme"}, labels={"tenant": "acme"})

@hookimpl
def bentotool_base_image(plan):
    return f"registry.example/{plan['name']}:{plan['python']}"

@hookimpl
def bentotool_runtime_middleware(service):
    return ["tenancy:Header"]

@hookimpl
def bentotool_after_build(bento):
    with open(os.environ["BUILT"], "w") as file:
        json.dump(vars(bento), file)
"""
OTHER = """
from bentotool.hookspecs import hookimpl
from bentotool.interfaces import PlanAddition

@hookimpl
def bentotool_plan_build(config, models):
    return PlanAddition({addition})
"""


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a distribution with one plugin where every new process finds it."""
    site = tmp_path / "site"
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("BUILT", str(tmp_path / "built.json"))

    def make(name: str, hooks: str) -> None:
        info = site / f"plug_{name}-2.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug-{name}\nVersion: 2.1\n")
        (info / "entry_points.txt").write_text(f"[bentotool]\n{name} = plug_{name}\n")
        (site / f"plug_{name}.py").write_text(hooks)

    return make


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a lock, so that no index is asked."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def serving(folder: Path, bento: str) -> Iterator[str]:
    """The address of a server that answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bentotool", "serve", bento, "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5):
                    break
                if server.poll() is not None or time.monotonic() > end:
                    server.kill()
                    pytest.fail(f"the server did not start: {server.communicate()[0]}")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()


def test_what_a_plugin_adds_is_in_the_bento(
    install: Callable[[str, str], None], project: Path, store: Path, tmp_path: Path
) -> None:
    install("tenancy", HOOKS)
    done = run(project, "build", "--json", "--locked")
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert json.loads((tmp_path / "built.json").read_text()).items() <= built.items()
    plan = json.loads(run(project, "build", "--dry-run", "--json").stdout)["plan"]
    assert plan["image"] == {"base_image": "registry.example/double:3.12"}
    assert (plan["labels"], plan["middleware"]) == ({"tenant": "acme"}, ["tenancy:Header"])
    assert set(plan["added"]) == {"tenancy.py", "tenant.txt"}
    assert json.loads(run(project, "show", "double", "--json").stdout)["labels"] == {"tenant": "acme"}
    (tmp_path / "built.json").unlink()
    again = json.loads(run(project, "build", "--json").stdout)
    assert (again["digest"], (tmp_path / "built.json").exists()) == (built["digest"], True)
    without = run(project, "build", "--json", "--disable-plugin", "tenancy")
    assert json.loads(without.stdout)["digest"] != built["digest"]


def test_it_takes_part_in_serving(install: Callable[[str, str], None], project: Path, store: Path) -> None:
    install("tenancy", HOOKS)
    assert run(project, "build", "--locked").returncode == 0
    request = {"data": b"{}", "headers": {"Content-Type": "application/json"}}
    with (
        serving(project, "double") as address,
        urllib.request.urlopen(urllib.request.Request(f"{address}/tenant", **request), timeout=10) as answer,
    ):
        assert (answer.read(), answer.headers["x-tenant"]) == (b"acme of a plugin", "acme")


def test_a_base_image_of_the_configuration_stands(install: Callable[[str, str], None], project: Path) -> None:
    install("tenancy", HOOKS)
    (project / "bentofile.yaml").write_text("docker: {base_image: mine.example/base}")
    plan = json.loads(run(project, "build", "--dry-run", "--json").stdout)["plan"]
    assert plan["image"] == {"base_image": "mine.example/base"}


@pytest.mark.parametrize(
    ("addition", "what"),
    [
        ("files={'tenant.txt': b'another'}", "files 'tenant.txt'"),
        ("env={'TENANT': 'other'}", "env 'TENANT'"),
        ("labels={'tenant': 'other'}", "labels 'tenant'"),
    ],
)
def test_a_conflict_is_one_line_that_names_both(
    install: Callable[[str, str], None], project: Path, store: Path, addition: str, what: str
) -> None:
    install("tenancy", HOOKS)
    install("zoning", OTHER.format(addition=addition))
    done = run(project, "build", "--locked")
    assert (done.returncode, done.stdout) == (1, "")
    said = f"error: {what} of the Bento is declared by plugin 'tenancy' (plug-tenancy 2.1) and plugin 'zoning' (plug-zo"
    assert done.stderr.startswith(said), done.stderr
    assert "--disable-plugin zoning" in done.stderr
    assert not list(store.rglob("refs/bentos/*"))


@pytest.mark.parametrize("module", ["tenanci", "tenancy.inner", "pytest"])
def test_middleware_that_the_bento_does_not_have(
    install: Callable[[str, str], None], project: Path, module: str
) -> None:
    install("tenancy", HOOKS.replace("tenancy:Header", f"{module}:Header"))
    done = run(project, "build", "--locked")
    said = f"plugin 'tenancy' names the middleware '{module}:Header', and '{module}' is in no file"
    assert said in " ".join(done.stderr.split()), done.stderr
    if module == "pytest":  # it is here, and in no package of the lock: it cannot be in the Bento
        assert done.returncode == 1
        assert "--disable-plugin tenancy" in done.stderr
