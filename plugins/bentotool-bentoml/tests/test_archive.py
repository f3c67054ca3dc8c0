"""``bentotool import FILE.bento``: exports in the shape that BentoML 1.4.40 writes, made by hand.

The same was tried with an export that BentoML 1.4.40 itself had written; ``test_real_bentoml.py`` does so where it is
installed.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bentotool_bentoml.archive import BentoArchive
from onnx import TensorProto, helper

from bentotool.build.wheel import make_wheel
from bentotool.errors import UsageError
from bentotool.interfaces import SourceRequest

SERVICE = """
import os
import pathlib
import bentoml
from bentoml.models import BentoModel
from bentoml.exceptions import InvalidArgument

@bentoml.service(resources={"cpu": "1"}, traffic={"timeout": 10})
class Doubler:
    adder = BentoModel("adder:latest")

    @bentoml.api
    def double(self, x: float) -> float:
        if x < 0:
            raise InvalidArgument("negative")
        return 2 * x

    @bentoml.api
    def about(self) -> list[str]:
        import bentotool
        from bentotool.models import BentoModel as Own
        files = [path.name for path in pathlib.Path(self.adder.path).iterdir()]
        return [*files, os.environ["LEVEL"], str(bentoml is bentotool and BentoModel is Own)]
"""
BENTO = """\
service: service:Doubler
name: doubler
version: '1.2'
bentoml_version: 1.4.40
creation_time: '2026-11-23T07:46:44.282348+00:00'
labels:
  owner: me
models:
- tag: adder:mcjbijq6j2yhiusu
  module: bentoml.onnx
  creation_time: '2026-11-23T07:46:20.542683+00:00'
  alias: second
entry_service: Doubler
services:
- name: Doubler
  service: ''
  models:
  - tag: adder:mcjbijq6j2yhiusu
    module: bentoml.onnx
    creation_time: '2026-11-23T07:46:20.542683+00:00'
  dependencies: []
  config:
    traffic:
      timeout: 10
envs:
- name: LEVEL
  value: '3'
  stage: all
schema:
  name: Doubler
  type: service
  routes: []
args: {}
spec: 2
image:
  base_image: python:3.11-slim
  python_version: '3.11'
  commands:
  - apt-get update && apt-get install -q -y --no-install-recommends git
  python_requirements: ''
  post_commands: []
  build_include: []
"""
BENTOFILE = """\
args: {}
conda: {channels: null, dependencies: null, environment_yml: null, pip: null}
description: null
docker:
  base_image: null
  cuda_version: null
  distro: debian
  dockerfile_template: null
  env: {LEVEL: '3'}
  python_version: '3.11'
  setup_script: null
  system_packages: [curl]
include: ['*.py']
service: service:Doubler
"""
RUNTIME = (
    "litestar",
    "uvicorn",
    "h11",
    "httptools",
    "uvloop",
    "msgspec",
    "prometheus_client",
    "anyio",
    "multidict",
    "multipart",
)
ASKED = "--no-index\n--find-links wheels\ntiny\nbentoml==1.4.40\n"
LOCKED = "--no-index\ntiny==1.0\nuvicorn==0.1\nbentoml==1.4.40\n    # via -r requirements.in\nstarlette==0.50.0\n"


DOCUMENT = """\
name: adder
version: mcjbijq6j2yhiusu
module: bentoml.onnx
labels: {}
options: {}
metadata: {}
context: {framework_name: onnx, framework_versions: {}, bentoml_version: 1.4.40, python_version: 3.11.7}
signatures: {}
api_version: v2
creation_time: '2026-11-23T07:46:20.542683+00:00'
"""


def adder() -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "adder", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def contents() -> dict[str, bytes]:
    """The files of an export; its own folder of wheels stands for the package index."""
    texts = {
        "bento.yaml": BENTO,
        "README.md": "# doubler\n",
        "apis/schema.json": "{}",
        "env/docker/Dockerfile": "FROM python:3.11-slim\n",
        "env/python/requirements.in": ASKED,
        "env/python/requirements.txt": LOCKED,
        "models/adder/latest": "mcjbijq6j2yhiusu",
        "models/adder/mcjbijq6j2yhiusu/model.yaml": DOCUMENT,
        "src/bentofile.yaml": BENTOFILE,
        "src/service.py": SERVICE,
    }
    wheels = {(name, "9.0"): [] for name in (*RUNTIME, "pyyaml", "sniffio", "typing_extensions", "exceptiongroup")}
    wheels |= {
        ("litestar", "2.20"): [],
        ("tiny", "1.0"): [],
        ("tiny", "2.0"): [],
        ("onnxruntime", "9.0"): [],
        ("numpy", "9.0"): [],
    }
    del wheels["litestar", "9.0"]
    files = {name: text.encode() for name, text in texts.items()}
    for name, version in wheels:
        path = f"env/python/wheels/{name}-{version}-py3-none-any.whl"
        files[path] = make_wheel(name, version, {f"{name}.py": b""})
    files["models/adder/mcjbijq6j2yhiusu/saved_model.onnx"] = adder()
    return files


def export(file: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    """As BentoML does: a tar compressed by xz, names with ``./`` before them, folders as entries."""
    with tarfile.open(file, "w:xz") as archive:
        for folder in (".", "./src", "./models", "./models/adder"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
        for entry in extra:
            archive.addfile(entry)
    return file


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def bring(file: Path, *words: object) -> dict[str, Any]:
    done = run("import", file, "--trust", "--json", *words)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@contextlib.contextmanager
def serving(bento: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bentotool", "serve", bento, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
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


def ask(url: str, body: dict[str, object]) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_an_export_becomes_a_bento_that_serves(tmp_path: Path) -> None:
    packages = {"env/python/requirements.in": ASKED.replace("tiny\n", "").encode()}  # what is installed here
    made = bring(export(tmp_path / "doubler.bento", {**contents(), **packages}))
    assert (made["tag"], made["service"], made["python"]) == ("doubler:1.2", "service:Doubler", "3.11")
    assert made["labels"] == {"owner": "me"}
    assert [(model["alias"], model["version"], model["framework"]) for model in made["models"]] == [
        ("adder:latest", "mcjbijq6j2yhiusu", "onnx"),
        ("second", "mcjbijq6j2yhiusu", "onnx"),
    ]
    with serving("doubler:1.2") as address:
        assert ask(f"{address}/double", {"x": 4}) == (200, 8.0)
        assert ask(f"{address}/about", {}) == (200, ["saved_model.onnx", "3", "True"])
        status, refusal = ask(f"{address}/double", {"x": -1})
        assert (status, refusal["error"]["message"]) == (400, "negative")


def test_other_formats_and_a_second_import_give_the_same_digest(tmp_path: Path) -> None:
    first = bring(export(tmp_path / "doubler.bento", contents()))
    assert bring(tmp_path / "doubler.bento")["digest"] == first["digest"]
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name, content in contents().items():
            archive.writestr(name, content)
    assert bring(Path(f"bentoml:{tmp_path / 'd.zip'}"), "--store", tmp_path / "other")["digest"] == first["digest"]
    listed = json.loads(run("model", "list", "--json").stdout)
    assert [model["tag"] for model in listed] == ["adder:mcjbijq6j2yhiusu"]


def unpack(tmp_path: Path, files: dict[str, bytes]) -> Any:
    room = tmp_path / "room"
    room.mkdir()
    file = export(tmp_path / "doubler.bento", files)
    return BentoArchive().unpack(SourceRequest(str(file), room, 1 << 30, None, lambda amount: None))


def test_packages_are_those_asked_for_at_their_locked_versions(tmp_path: Path) -> None:
    archived = unpack(tmp_path, contents())
    asked = (archived.project / "bentoml-requirements.txt").read_text()
    assert asked == "--no-index\n--find-links wheels\ntiny\n-c bentoml-constraints.txt\n"
    assert (archived.project / "bentoml-constraints.txt").read_text() == "tiny==1.0\nstarlette==0.50.0\n"
    assert archived.config["docker"] == {"system_packages": ["curl"]}
    assert archived.config["envs"] == [{"name": "LEVEL", "value": "3", "stage": "all"}]
    assert archived.config["python"] == {"version": "3.11", "requirements_txt": "bentoml-requirements.txt"}


def test_packages_that_bentoml_brought_along_are_asked_for(tmp_path: Path) -> None:
    more = b"import os, numpy.linalg\nfrom pydantic import BaseModel\nfrom . import yaml\ndef f():\n    import attr\n"
    asked = b"numpy>=2\nbentoml\n"
    files = {**contents(), "src/more.py": more, "src/broken.py": b"import (", "env/python/requirements.in": asked}
    files["env/python/requirements.txt"] = b"pydantic==2.11.0\n"
    archived = unpack(tmp_path, files)
    asked_for = (archived.project / "bentoml-requirements.txt").read_text().splitlines()
    assert asked_for == ["numpy>=2", "attrs", "pydantic", "-c bentoml-constraints.txt"]


def test_a_module_of_that_name_stays(tmp_path: Path) -> None:
    archived = unpack(tmp_path, {**contents(), "src/bentoml.py": b"mine = 1\n"})
    assert (archived.project / "bentoml.py").read_text() == "mine = 1\n"


def test_the_older_layout_of_requirements(tmp_path: Path) -> None:
    files = contents()
    del files["env/python/requirements.in"]
    files["env/python/requirements.txt"] = (
        b"tiny>=1 \\\n  --hash=sha256:00\nbentoml[io]==1.2\n./wheels/bentoml-1.2.tar.gz\n"
    )
    files["env/python/requirements.lock.txt"] = b"tiny[x]==1.0 ; python_version >= '3.8' \\\n    --hash=sha256:11\n"
    archived = unpack(tmp_path, files)
    asked = (archived.project / "bentoml-requirements.txt").read_text()
    assert asked == "tiny>=1    --hash=sha256:00\n-c bentoml-constraints.txt\n"
    assert (archived.project / "bentoml-constraints.txt").read_text() == "tiny==1.0 ; python_version >= '3.8'\n"


def test_nothing_runs_without_trust(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = {**contents(), "src/service.py": f"open({str(canary)!r}, 'w')\n{SERVICE}".encode()}
    done = run("import", export(tmp_path / "doubler.bento", files))
    assert (done.returncode, done.stdout) == (6, "")
    assert "doubler.bento holds code" in done.stderr
    assert "--trust" in done.stderr
    assert not canary.exists()
    assert run("list", "--json").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("import bentoml\nrunner = bentoml.Runner\n", "has no attribute 'Runner'"),
        ("from bentoml.io import NumpyNdarray\n", "bentotool has no io, which bentoml.io would be"),
    ],
)
def test_what_does_not_run_here_is_one_line(tmp_path: Path, service: str, said: str) -> None:
    file = export(tmp_path / "doubler.bento", {**contents(), "src/service.py": service.encode()})
    done = run("import", file, "--trust")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert run("list", "--json").stdout.strip() == "[]"


OLD = BENTO.replace("services:", "was:").replace("entry_service", "x") + "runners: [{name: r}]\napis: [{name: p}]\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bento.yaml": None}, "no Bento of BentoML"),
        ({"bento.yaml": b"- 1\n"}, "not a mapping"),
        ({"bento.yaml": b"a: &a [*a]\n"}, "bento.yaml"),
        ({"bento.yaml": b"name: x\n"}, "names no service"),
        ({"bento.yaml": OLD.encode()}, "old API"),
        ({"src/service.py": None, "src/bentofile.yaml": None}, "holds no code"),
        ({"models/adder/mcjbijq6j2yhiusu/model.yaml": DOCUMENT.replace("adder", "other").encode()}, "calls itself"),
    ],
)
def test_what_is_no_bento_is_said(tmp_path: Path, changed: dict[str, bytes | None], said: str) -> None:
    files = {name: content for name, content in {**contents(), **changed}.items() if content is not None}
    with pytest.raises(Exception, match=said) as caught:
        unpack(tmp_path, files)
    assert isinstance(caught.value, UsageError) or caught.type.__name__ == "ConfigError"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("./src/more.py")
    entry.type, entry.linkname = kind, "/etc/passwd"
    done = run("import", export(tmp_path / "doubler.bento", contents(), entry), "--trust")
    assert done.returncode == 6, done.stderr


def test_names_that_climb_and_size_are_refused(tmp_path: Path) -> None:
    done = run("import", export(tmp_path / "a.bento", {**contents(), "../../evil.py": b"x"}), "--trust")
    assert (done.returncode, list(tmp_path.rglob("evil.py"))) == (6, [])
    limited = run("import", export(tmp_path / "b.bento", contents()), "--trust", "--max-size", "1kB")
    assert limited.returncode == 6
    absent = run("import", tmp_path / "none.bento", "--trust")
    assert absent.returncode == 3
