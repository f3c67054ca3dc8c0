"""``bentotool show`` of a Bento in the store: what it holds, in short and whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.configfile import load_config
from bentotool.build.contents import contents_of
from bentotool.build.lock import inputs_digest
from bentotool.build.requirements import gather
from bentotool.cli.main import main
from bentotool.errors import VerificationError
from bentotool.oci.layout import Layout

SERVICE = """
from typing import Optional
import bentotool

@bentotool.service(labels={"team": "a"}, envs=[{"name": "MODE", "value": "fast"}, {"name": "TOKEN"}])
class Double:
    @bentotool.api
    def predict(self, x: float, names: Optional[list[str]] = None) -> dict[str, float]:
        return {}

    @bentotool.api(batchable=True)
    def many(self, xs: list[float]) -> list[float]:
        return xs

    @bentotool.api(method="GET", route="/count")
    def count(self):
        yield "1"
"""


@pytest.fixture
def store(tmp_path: Path, require_package: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> Path:
    """A store with the Bento ``double``, built from a project with a lock, so that no index is asked."""
    require_package("litestar")
    folder = tmp_path / "project"
    (folder / "lib").mkdir(parents=True)
    (folder / "service.py").write_text(SERVICE)
    (folder / "lib" / "more.py").write_text("X = 1\n")
    (folder / "bentofile.yaml").write_text("docker: {cuda_version: '12.8', env: {A: b}}\n")
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(f"{header}litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64}\n")
    assert main(["build", str(folder), "--locked", "--store", str(tmp_path / "store")]) == 0
    capsys.readouterr()
    return tmp_path / "store"


def shown(capsys: pytest.CaptureFixture[str], store: Path, *words: str) -> str:
    assert main(["show", "double", "--store", str(store), *words]) == 0
    return capsys.readouterr().out


def test_a_person_reads_it_at_a_glance(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, store)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "python: 3.12, linux/amd64" in lines
    assert any(line.startswith("files: 3 files, ") for line in lines)
    assert "packages: 1 package" in lines
    assert any(line.startswith("lock inputs: sha256:") for line in lines)
    assert 'image: cuda_version=12.8, env={"A": "b"}' in lines
    assert "POST /predict (x: number, names: list[string] | null = …) object" in lines
    assert "POST /many (xs: list[number]) list[number] batchable" in lines
    assert any(line.startswith("GET /count () ") and line.endswith("stream") for line in lines)
    assert {"MODE fast all", "TOKEN given when it runs all"} <= set(lines)
    assert "service.py" not in text
    assert "2.25.0" not in text


def test_files_and_packages_when_asked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, store, "--files", "--deps")
    lines = [line.split()[0] for line in text.splitlines() if "sha256:" in line][-3:]
    assert lines == ["bentofile.yaml", "lib/more.py", "service.py"]
    assert "litestar" in text
    assert "2.25.0" in text


def test_a_program_reads_all_of_it(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(shown(capsys, store, "--json"))
    assert [file["path"] for file in document["files"]] == ["bentofile.yaml", "lib/more.py", "service.py"]
    assert document["packages"] == [{"name": "litestar", "version": "2.25.0"}]
    assert [api["route"] for api in document["apis"]] == ["/predict", "/many", "/count"]
    assert document["api"]["openapi"]["openapi"] == "3.1.0"
    assert document["image"] == {"cuda_version": "12.8", "env": {"A": "b"}}
    assert set(document["lock"]) == {"digest", "inputs"}
    assert {"envs", "runtime", "arguments", "models", "referrers", "labels"} <= set(document)


@pytest.mark.parametrize("key", ["envs", "image", "lock", "runtime"])
def test_a_config_of_another_form_is_refused(store: Path, key: str) -> None:
    from dataclasses import replace

    from bentotool.build.bentos import BentoStore

    bentos = BentoStore(Layout(store))
    bento = bentos.get("double")
    for wrong in ("text", 1, [1], None):
        with pytest.raises(VerificationError, match=key):
            contents_of(bentos, replace(bento, config={**bento.config, key: wrong}))
