"""``bentotool.models.HuggingFaceModel``: declared, built into a Bento, served there and from a folder; no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bentotool
from bentotool.build.wheel import make_wheel
from bentotool.errors import NotFoundError, UsageError
from bentotool.models import HuggingFaceModel
from bentotool.models.declared import import_hint

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows"),
    pytest.mark.timeout(300),
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SERVICE = """
import pathlib
import bentotool


@bentotool.service
class Tiny:
    folder = bentotool.models.HuggingFaceModel({arguments})

    @bentotool.api
    def files(self) -> list[str]:
        assert isinstance(self.folder, str) and self.folder == self.folder
        root = pathlib.Path(self.folder)
        return [self.folder, *sorted(each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file())]
"""
BUILD = """
import json, sys
from bentotool.build.api import BuildOptions, build_bento
from bentotool.build.bentos import BentoStore
from bentotool.errors import BentotoolError
from bentotool.oci.layout import Layout
from bentotool.paths import default_store
from bentotool.plugins import load_plugins
from bentotool.build import stamps, standing, trace

stamps.SETTLED_NS = trace.SETTLED_NS = 20_000_000
standing._tool = lambda: "the same"
layout = Layout(default_store())
options = BuildOptions(runtime_requirements=("fakestar>=2",), platform="linux/amd64", **json.loads(sys.argv[1]))
try:
    result = build_bento(".", layout=layout, plugins=load_plugins(), options=options)
except BentotoolError as error:
    print(json.dumps({"error": [type(error).__name__, error.message, error.hint]}))
else:
    root = BentoStore(layout).materialise(BentoStore(layout).get(result.tag))
    facts = {"cached": result.cached["build"], "digest": result.digest, "models": result.models, "root": str(root)}
    print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Place:
    """A project, and the environment in which commands run: the hub's client reads its settings when imported."""

    project: Path
    environment: dict[str, str]

    def declare(self, arguments: str) -> None:
        (self.project / "service.py").write_text(SERVICE.format(arguments=arguments))

    def build(self, **options: object) -> Any:
        time.sleep(0.08)  # files settle within 20 ms here
        return self.run("-c", BUILD, json.dumps(options))

    def model(self, *arguments: str) -> Any:
        return self.run("-m", "bentotool", "--json", "model", *arguments)

    def run(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.project, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def place(hub: Path, tmp_path: Path, require_package: Callable[[str], None]) -> Place:
    for name in ("huggingface_hub", "litestar"):
        require_package(name)
    wheels, project = tmp_path / "wheels", tmp_path / "project"
    wheels.mkdir()
    project.mkdir()
    for name in ("fakestar", "numpy", "safetensors", "torch", "transformers"):
        content = make_wheel(name, "5.0", {f"{name}.py": b"VALUE = 1\n"}, [])
        (wheels / f"{name}-5.0-py3-none-any.whl").write_bytes(content)
    config = f"service: service:Tiny\nname: tiny\npython:\n  no_index: true\n  find_links: ['{wheels.as_posix()}']\n"
    (project / "bentofile.yaml").write_text(config)
    settings = {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "uv")}
    place = Place(project, {**os.environ, **settings})
    place.declare('"acme/tiny"')
    return place


@contextmanager
def serving(command: list[str], port_file: Path, cwd: Path, environment: dict[str, str]) -> Iterator[str]:
    """The server's address, once it answers; ended whatever happens."""
    log = port_file.with_name("log")
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--port", "0", "--port-file", str(port_file)],
            cwd=cwd, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text().strip():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(20)


def ask(url: str) -> list[str]:
    request = urllib.request.Request(f"{url}/files", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return list(json.load(response))


FILES = ["config.json", "model.safetensors", "sub/vocab.txt"]


def test_a_build_takes_the_model_in_and_the_bento_serves_it(place: Place, tmp_path: Path) -> None:
    refused = place.build(offline=True)["error"]
    assert refused == [
        "NotFoundError",
        "model hf://acme/tiny@main is not in the store",
        "bentotool model import hf://acme/tiny@main --replace",
    ]
    first = place.build()
    (model,) = first["models"]
    (listed,) = place.model("list")
    assert (model["alias"], model["name"], model["digest"]) == (
        "hf://acme/tiny@main", "acme--tiny", listed["digest"],
    )  # fmt: skip
    again = place.build()
    assert (first["cached"], again["cached"], again["digest"]) == (False, True, first["digest"])
    assert place.build(offline=True, fresh=True)["digest"] == first["digest"]  # it is in the store
    root = Path(first["root"])
    environment = {**place.environment, "PYTHONPATH": str(root / "opt" / "bentotool" / "runtime")}
    environment |= {"BENTOTOOL_STORE": str(tmp_path / "empty"), "HF_HOME": str(tmp_path / "nothing")}
    command = [sys.executable, "-m", "bentotool.runtime", str(root / "home" / "bento")]
    with serving(command, tmp_path / "port", tmp_path, environment) as url:
        assert ask(url) == [str(root / "models" / "acme--tiny"), *FILES]


def test_a_model_that_was_imported_is_used_and_a_newer_one_counts(place: Place, hub: Path) -> None:
    digest = place.model("import", f"hf://acme/tiny@{COMMIT}", "--name", "mine")["digest"]
    place.declare(f'"acme/tiny", revision="{COMMIT}"')
    assert place.build(offline=True)["models"][0]["digest"] == digest
    place.declare('"acme/tiny", "main"')  # what the branch stands for was never asked
    assert "is not in the store" in place.build(offline=True)["error"][1]
    assert place.model("import", "hf://acme/tiny")["name"] == "acme--tiny"
    first = place.build(offline=True)
    assert first["models"][0]["name"] == "acme--tiny"
    assert place.build(offline=True)["cached"] is True
    (hub / "hub" / "models--acme--tiny" / "blobs" / "new").write_text("more")
    (hub / "hub" / "models--acme--tiny" / "snapshots" / COMMIT / "more.txt").symlink_to("../../blobs/new")
    assert place.build(offline=True)["cached"] is True  # until it is imported again
    newer = place.model("import", "hf://acme/tiny@main")["digest"]
    after = place.build(offline=True)
    assert (after["cached"], after["models"][0]["digest"]) == (False, newer)


def test_some_of_the_files_are_another_model(place: Place) -> None:
    place.declare('"acme/tiny", include=["*.safetensors", "*.json"], exclude=["voc*"]')
    hint = place.build(offline=True)["error"][2].split()
    assert hint[:4] == ["bentotool", "model", "import", "hf://acme/tiny@main"]
    place.model("import", "hf://acme/tiny")
    assert "error" in place.build(offline=True)
    part = place.build()["models"][0]["digest"]
    shown = place.model("show", f"acme--tiny@{part}")
    assert [file["path"] for file in shown["files"]] == ["config.json", "model.safetensors"]
    place.run("-m", "bentotool", "--json", *[word.strip("'") for word in hint[1:]])
    assert place.build(offline=True, fresh=True)["models"][0]["digest"] == part


def test_a_folder_is_served_with_the_model_of_the_store(place: Place, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentotool.runtime", str(place.project)]
    with serving(command, tmp_path / "port", place.project, place.environment) as url:
        path, *files = ask(url)  # imported when it is first used
        assert files == FILES
    assert path == place.model("path", "acme--tiny")["path"]


def test_the_path_inside_a_bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "bento"
    home.mkdir(parents=True)
    entry = {
        "alias": "hf://acme/tiny@main", "name": "t", "version": "1", "digest": "sha256:0", "path": "models/t",
    }  # fmt: skip
    (home / "bento.json").write_text(json.dumps({"models": [entry]}), encoding="utf-8")
    monkeypatch.setenv("BENTOTOOL_BENTO", str(home / "bento.json"))

    class Service:
        model = HuggingFaceModel("acme/tiny", endpoint="https://mirror.example")
        other = HuggingFaceModel("acme/other")

    assert Service().model == str(tmp_path / "models" / "t")
    assert str(bentotool.models.get("hf://acme/tiny@main").path) == Service().model
    assert isinstance(Service.model, HuggingFaceModel)
    with pytest.raises(NotFoundError, match="hf://acme/other@main is not in this Bento"):
        _ = Service().other


def test_what_names_no_repository_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    for wrong in ("", "a/b/c", "../x", "a b/c", "hf://a/b"):
        with pytest.raises(UsageError):
            HuggingFaceModel(wrong)
    with pytest.raises(UsageError):
        HuggingFaceModel("a/b", "")
    with pytest.raises(TypeError):
        HuggingFaceModel("a/b", include="*.json")
    with pytest.raises(UsageError) as refused:
        HuggingFaceModel("a/b", endpoint="https://mirror.example/")
    assert refused.value.hint == "set HF_ENDPOINT=https://mirror.example/"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert HuggingFaceModel("a/b", endpoint="https://mirror.example/").reference == "hf://a/b@main"
    reference = HuggingFaceModel("a/b", "v1", include=["*.json", "a b"], exclude=["x&y"]).reference
    assert import_hint(reference) == (
        "bentotool model import hf://a/b@v1 --include '*.json' --include 'a b' --exclude 'x&y' --replace"
    )
