"""A Bento with a wheel of its own making, and base images that are made here: no index and no registry is asked."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.api import BuildOptions, build_bento
from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.configfile import load_config
from bentotool.build.lock import inputs_digest
from bentotool.build.requirements import gather
from bentotool.build.wheel import make_wheel
from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore
from bentotool.oci.descriptor import INDEX, MANIFEST, canonical_json
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins

SERVICE = """
import bentotool

@bentotool.service(labels={"team": "flowers"})
class Double:
    model = bentotool.models.BentoModel("iris:1")

    @bentotool.api
    def predict(self, x: float) -> float:
        return 2 * x
"""
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
PYTHON = ("usr/local/bin/python3.12", "usr/bin/python3.11", "etc/os-release")


def tar_of(names: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Bases:
    """Writes OCI layouts with base images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def blob(self, where: Path, data: bytes) -> str:
        target = where / "blobs" / "sha256" / digest_of(data)[7:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return digest_of(data)

    def image(
        self,
        where: Path,
        layers: Sequence[Sequence[str]],
        platform: str,
        *,
        docker: bool = False,
        compress: str = "gzip",
    ) -> dict[str, Any]:
        """One image's manifest as an index lists it."""
        plain = [tar_of(names) for names in layers]
        packed = [gzip.compress(data, mtime=0) if compress == "gzip" else data for data in plain]
        kind = LAYER + ("+gzip" if compress == "gzip" else "")
        if docker:
            kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
        parts = [{"mediaType": kind, "digest": self.blob(where, data), "size": len(data)} for data in packed]
        system, architecture = platform.split("/")[:2]
        config = canonical_json(
            {
                "architecture": architecture,
                "os": system,
                "config": {
                    "Env": ["PATH=/usr/local/bin:/usr/bin", "LANG=C.UTF-8", "PORT=9"],
                    "Cmd": ["python3"],
                    "User": "root",
                    "Volumes": {"/data": {}},
                    "OnBuild": ["RUN evil"],
                    "Labels": {"vendor": "us", "org.opencontainers.image.title": "base"},
                },
                "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in plain]},
                "history": [{"created_by": "one"} for _ in plain] + [{"created_by": "env", "empty_layer": True}],
            }
        )
        config_type = "application/vnd.docker.container.image.v1+json" if docker else CONFIG
        media_type = "application/vnd.docker.distribution.manifest.v2+json" if docker else MANIFEST
        manifest = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": {"mediaType": config_type, "digest": self.blob(where, config), "size": len(config)},
                "layers": parts,
            }
        )
        return {"mediaType": media_type, "digest": self.blob(where, manifest), "size": len(manifest)}

    def write(self, name: str, entries: Sequence[dict[str, Any]]) -> Path:
        where = self.folder / name
        (where / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
        (where / "index.json").write_bytes(canonical_json(document))
        return where

    def __call__(
        self,
        name: str = "base",
        layers: Sequence[Sequence[str]] = (PYTHON,),
        platforms: Sequence[str] = ("linux/amd64",),
        **options: Any,
    ) -> Path:
        """A layout with one image, or with an index of several as registries have them."""
        where = self.folder / name
        where.mkdir()
        images = [(each, self.image(where, layers, each, **options)) for each in platforms]
        if len(images) == 1:
            return self.write(name, [images[0][1]])
        listed = []
        for platform, entry in images:
            system, architecture, *variant = platform.split("/")
            about = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
            listed.append({**entry, "platform": about})
        unknown = {"os": "unknown", "architecture": "unknown"}
        listed.append({**images[0][1], "platform": unknown})  # as BuildKit lists an image's provenance
        index = canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
        return self.write(name, [{"mediaType": INDEX, "digest": self.blob(where, index), "size": len(index)}])


@pytest.fixture
def make_base(tmp_path: Path) -> Bases:
    """``make_base("name", layers, platforms)`` gives the folder of an OCI layout."""
    folder = tmp_path / "bases"
    folder.mkdir()
    return Bases(folder)


@pytest.fixture
def base(make_base: Bases) -> str:
    """``oci:FOLDER`` of a base with Python 3.12 for both platforms."""
    return f"oci:{make_base(platforms=('linux/amd64', 'linux/arm64/v8'))}"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the one wheel that the lock names."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    folder = tmp_path / "wheels"
    folder.mkdir()
    files = {
        "demo/__init__.py": b"answer = 42\n",
        "demo-1.dist-info/entry_points.txt": b"[console_scripts]\ndemo = demo:run\n",
    }
    (folder / "demo-1-py3-none-any.whl").write_bytes(make_wheel("demo", "1", files, python=">=3"))
    return folder


def lock_text(project: Path, wheels: Path, platform: str, *, extra: str = "") -> str:
    inputs = inputs_digest(gather(load_config(project)), "3.12", platform)
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: {platform}\n{extra}"
    digest = hashlib.sha256((wheels / "demo-1-py3-none-any.whl").read_bytes()).hexdigest()
    return f"{header}demo==1 \\\n    --hash=sha256:{digest}\n"


@pytest.fixture
def layout(store: Path) -> Layout:
    return Layout(store)


@pytest.fixture
def build(
    tmp_path: Path,
    layout: Layout,
    wheels: Path,
    require_package: Callable[[str], None],
) -> Callable[..., StoredBento]:
    """``build(config=…, service=…)`` makes a project and its Bento, with a model."""
    require_package("litestar")
    project = tmp_path / "project"
    project.mkdir()
    listing = [ModelFile("w.bin", 7, layout.put(b"weights", "application/octet-stream").digest)]
    ModelStore(layout).add("iris", "1", listing, ModelDetails("", "raw", "data", "w.bin", {}, (), {}, {}))

    def make(config: str = "", service: str = SERVICE, extra: str = "") -> StoredBento:
        (project / "service.py").write_text(service)
        (project / "bentofile.yaml").write_text(
            f"name: double\nmodels: ['iris:1']\npython: {{version: '3.12'}}\n{config}"
        )
        (project / "bento.lock").write_text(lock_text(project, wheels, "linux/amd64", extra=extra))
        options = BuildOptions(platform="linux/amd64", locked=True)
        result = build_bento(project, layout=layout, plugins=load_plugins(), options=options, note=lambda line: None)
        return BentoStore(layout).get(result.tag)

    return make


@pytest.fixture
def bento(build: Callable[..., StoredBento]) -> StoredBento:
    return build()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``cli("containerize", …)`` gives the JSON document; ``status=2`` the error's."""
    from bentotool.cli.main import main

    def run(*arguments: str, status: int = 0) -> Any:
        done = main([*arguments, "--json", "--quiet"])
        output = capsys.readouterr()
        assert done == status, output.err
        lines = [line for line in output.err.splitlines() if line.startswith('{"error"')]
        return json.loads(output.out) if status == 0 else json.loads(lines[-1])["error"]

    return run


@pytest.fixture(scope="session")
def engine(require_tool: Callable[[str], str]) -> Callable[..., str]:
    """``engine("load", …)`` runs Docker's program and gives its output; skips where no engine answers."""
    program = require_tool("docker")
    try:
        subprocess.run([program, "info"], capture_output=True, check=True, timeout=20)
    except (subprocess.SubprocessError, OSError):
        require_tool("a running Docker engine")

    def run(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
