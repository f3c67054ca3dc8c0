"""An image from the real package index, run as a container is: its own root, read-only, by a user without rights."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.api import BuildOptions, build_bento
from bentotool.errors import RemoteError
from bentotool.oci.descriptor import Manifest
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="images are for Linux"),
    pytest.mark.timeout(300),
]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SERVICE = """
import os, subprocess, sys
import bentotool

CHILD = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', '']).pid)"

@bentotool.service
class Who:
    @bentotool.api
    def predict(self, x: float) -> dict[str, float]:
        return {"x": 2 * x, "uid": os.getuid(), "pid": os.getppid(), "writable": float(os.access("/", os.W_OK))}

    @bentotool.api
    def orphan(self) -> int:
        return int(subprocess.run([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, check=True).stdout)

    @bentotool.api
    def there(self, pid: int) -> bool:
        return os.path.exists(f"/proc/{pid}")
"""
PARTS = ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6")
LEFT_OUT = re.compile(r"(^|/)(__pycache__|test|tests|idlelib|tkinter|ensurepip|site-packages|config-[^/]*)(/|$)|\.a$")


def libraries(*programs: Path) -> set[str]:
    """Shared libraries that some programs need, as absolute paths."""
    found: set[str] = set()
    for program in programs:
        done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=20)
        found |= set(re.findall(r"(?:=> |^\s*)(/[^\s]+)", done.stdout, re.MULTILINE))
    # wheels link to parts of the C library that the interpreter may not
    (libc,) = (Path(each) for each in found if Path(each).name == "libc.so.6")
    return found | {str(libc.with_name(name)) for name in PARTS if libc.with_name(name).exists()}


@pytest.fixture(scope="session")
def rootfs(require_tool: Callable[[str], str]) -> bytes:
    """The layer of a base image: this interpreter, its library, and what they link to."""
    require_tool("ldd")
    prefix, standard = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))
    program = Path(os.path.realpath(sys.executable))
    modules = sorted((standard / "lib-dynload").glob("*.so"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(program, f"usr/local/bin/python{VERSION}")
        for path in sorted(standard.rglob("*")):
            name = path.relative_to(standard).as_posix()
            if path.is_file() and not LEFT_OUT.search(name):
                archive.add(path, f"usr/local/lib/python{VERSION}/{name}")
        for library in sorted(libraries(program, *modules)):
            own = Path(library).is_relative_to(prefix) and prefix != Path("/usr")
            name = f"usr/local/lib/{Path(library).name}" if own else library.lstrip("/")
            archive.add(os.path.realpath(library), name)
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


@pytest.fixture
def python_base(make_base: Any, rootfs: bytes) -> str:
    where = make_base("python")
    document = json.loads((where / "index.json").read_bytes())["manifests"][0]
    manifest = json.loads((where / "blobs" / "sha256" / document["digest"][7:]).read_bytes())
    config = json.loads((where / "blobs" / "sha256" / manifest["config"]["digest"][7:]).read_bytes())
    config["config"]["Env"] = ["PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin", "LD_LIBRARY_PATH=/usr/local/lib"]
    config["architecture"] = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config["rootfs"]["diff_ids"] = [make_base.blob(where, gzip.decompress(rootfs))]
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": make_base.blob(where, data), "size": len(data)}
    manifest["layers"][0] |= {"digest": make_base.blob(where, rootfs), "size": len(rootfs)}
    body = json.dumps(manifest).encode()
    make_base.write("python", [{**document, "digest": make_base.blob(where, body), "size": len(body)}])
    return f"oci:{where}"


@pytest.fixture
def tag(
    tmp_path: Path, layout: Layout, require_package: Callable[[str], None], require_tool: Callable[[str], str]
) -> str:
    """A Bento for this machine's kind, locked from the real index."""
    require_package("litestar")
    project = tmp_path / "project"
    project.mkdir()
    (project / "service.py").write_text(SERVICE)
    (project / "bentofile.yaml").write_text(f"name: who\npython: {{version: '{VERSION}'}}\n")
    try:
        built = build_bento(project, layout=layout, plugins=load_plugins(), options=BuildOptions(), note=print)
    except RemoteError:
        require_tool("a package index that answers")
        raise
    return built.tag


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: dict[str, object] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        content = reply.read()
    return json.loads(content) if body is not None else content


def unpack(layout: Layout, document: Any, root: Path) -> dict[str, Any]:
    """The image's files below a folder; gives its settings."""
    manifest = Manifest.from_bytes(layout.read(document["digest"]))
    for layer in manifest.layers:
        with layout.open_layer(layer) as stream, tarfile.open(fileobj=io.BytesIO(stream.read())) as archive:
            archive.extractall(root, filter="fully_trusted")
    for folder in ("dev", "proc", "tmp"):
        (root / folder).mkdir()
    return dict(json.loads(layout.read(manifest.config.digest))["config"])


MOUNT = 'mount --bind "$0" "$0" && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && '
START = MOUNT + 'mount -o remount,bind,ro "$0" && exec chroot --userspec=65532:65532 "$0" "$@"'


@contextmanager
def contained(root: Path, config: dict[str, Any], port: int) -> Iterator[subprocess.Popen[str]]:
    """The entrypoint as process 1 of a new namespace, from its first answer on."""
    program = shutil.which("unshare")
    assert program
    command = [program, "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", START, str(root)]
    env = dict(item.split("=", 1) for item in config["Env"]) | {"PORT": str(port), "BENTOTOOL_HOST": "127.0.0.1"}
    command += config["Entrypoint"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and server.poll() is None:
                with suppress(OSError):
                    ask(f"http://127.0.0.1:{port}/readyz")
                    break
                time.sleep(0.05)
            else:
                server.kill()
                pytest.fail(f"the image did not start: {server.communicate()[0]}")
            yield server
        finally:
            server.kill()
            server.wait(20)


def child_of(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def test_the_image_answers_as_a_container(
    cli: Callable[..., Any], tag: str, layout: Layout, python_base: str, tmp_path: Path,
    require_tool: Callable[[str], str],
) -> None:  # fmt: skip
    require_tool("unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root for a root folder of its own")
    done = cli("containerize", tag, "--base", python_base, "--bytecode")
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    for folder in (*root.parents,):
        if folder.is_relative_to(tmp_path.parents[1]):
            folder.chmod(0o755)
    config, port = unpack(layout, done, root), free_port()
    with contained(root, config, port) as server:
        answer = ask(f"http://127.0.0.1:{port}/predict", {"x": 21})
        assert answer == {"x": 42, "uid": 65532, "pid": 1, "writable": 0}
        check = ["chroot", str(root), *config["Healthcheck"]["Test"][1:]]
        env = {"PORT": str(port), "LD_LIBRARY_PATH": "/usr/local/lib", "PATH": os.environ["PATH"]}
        assert subprocess.run(check, env=env, timeout=30).returncode == 0
        orphan, end = ask(f"http://127.0.0.1:{port}/orphan", {}), time.monotonic() + 20
        while ask(f"http://127.0.0.1:{port}/there", {"pid": orphan}):
            assert time.monotonic() < end, "process 1 does not wait for the children of others"
            time.sleep(0.1)
        os.kill(child_of(server), signal.SIGTERM)
        assert server.wait(30) == 0
    assert subprocess.run(check, env=env, timeout=30).returncode == 1


def test_bytecode_is_a_layer_of_its_own_and_the_same_each_time(
    cli: Callable[..., Any], tag: str, layout: Layout, python_base: str
) -> None:
    arguments = ("containerize", tag, "--base", python_base, "--no-compress")
    plain, done = cli(*arguments), cli(*arguments, "--bytecode")
    kinds = [layer["kind"] for layer in done["images"][0]["layers"]]
    assert kinds == ["base", "python", "runtime", "bytecode", "code"]
    made = done["images"][0]["layers"][3]
    assert [layer for layer in done["images"][0]["layers"] if layer != made][:3] == [
        {**layer, "cached": True} if layer["kind"] == "python" else layer for layer in plain["images"][0]["layers"][:3]
    ]
    with tarfile.open(layout.blob_path(made["digest"])) as archive:
        found = {member.name: archive.extractfile(member).read(16) for member in archive}
    site = f"opt/bentotool/env/lib/python{VERSION}/site-packages"
    assert {f"{site}/bentotool/runtime/__pycache__/app.{sys.implementation.cache_tag}.pyc"} <= set(found)
    assert {head[:8] for head in found.values()} == {importlib.util.MAGIC_NUMBER + b"\1\0\0\0"}
    assert cli(*arguments, "--bytecode")["images"][0]["layers"][3]["cached"] is True
    layout.blob_path(made["digest"]).unlink()
    again = cli(*arguments, "--bytecode")
    assert (again["digest"], again["images"][0]["layers"][3]["cached"]) == (done["digest"], False)


def test_the_image_runs_in_an_engine(
    cli: Callable[..., Any], tag: str, python_base: str, tmp_path: Path, engine: Callable[..., str]
) -> None:
    archive, name = tmp_path / "image.tar", "bentotool-test/who:1"
    cli("containerize", tag, "--base", python_base, "-t", name, "--output", str(archive))
    engine("load", "-i", str(archive))
    port = free_port()
    limits = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "-p", f"127.0.0.1:{port}:3000")
    container = engine("run", "-d", *limits, name).strip()
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(OSError):
                ask(f"http://127.0.0.1:{port}/readyz")
                break
            time.sleep(0.1)
        assert ask(f"http://127.0.0.1:{port}/predict", {"x": 21})["x"] == 42
        health = json.loads(engine("image", "inspect", name))[0]["Config"]["Healthcheck"]["Test"]
        engine("exec", container, *health[1:])
        engine("stop", container)
        assert engine("inspect", "-f", "{{.State.ExitCode}}", container).strip() == "0"
    finally:
        engine("rm", "-f", container)
        engine("image", "rm", "-f", name)
