"""Many at once: pushes of models that share their shards, pulls into one store, the collector among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import bentotool.models.manifest
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore
from bentotool.oci.registry import Registry

pytestmark = pytest.mark.timeout(240)
MANY = 10
LIMIT = 200  # seconds
SHARDS = {f"shard-{n}.bin": bytes([n]) * (1 << 20) + b"shared" for n in range(3)}


@pytest.fixture(autouse=True)
def _shards_are_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of large models are: a layer is shared, where a bundle of small files is not."""
    monkeypatch.setattr(bentotool.models.manifest, "_OWN_LAYER", 1 << 20)


@pytest.fixture
def make_version(make_model: Callable[..., StoredModel]) -> Callable[[Layout, int], StoredModel]:
    def make(layout: Layout, number: int) -> StoredModel:
        own = {"own.bin": bytes([number]) * (1 << 20), "config.json": b'{"n": %d}' % number}
        return make_model(layout, "crowd", str(number), {**SHARDS, **own})

    return make


def run_at_once(commands: Sequence[Sequence[object]]) -> list[Any]:
    """The JSON documents that the commands printed, all of them started before the first is waited for."""
    whole = [[sys.executable, "-m", "bentotool", *map(str, command), "--json"] for command in commands]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, env={**os.environ, "DOCKER_CONFIG": "none"}, **pipes) for command in whole]
    try:
        ended = [process.communicate(timeout=LIMIT) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    failed = [errors for process, (_, errors) in zip(running, ended, strict=True) if process.returncode]
    assert not failed
    return [json.loads(output) for output, _ in ended]


def check_whole(*folders: Path) -> None:
    """Each byte of these stores; the command ends with a failure where one is wrong."""
    run_at_once([("store", "verify", "--store", folder) for folder in folders])


@pytest.mark.parametrize("stores", ["one store", "ten stores"])
def test_ten_pushes_of_overlapping_models(
    real_registry: Any, make_version: Callable[[Layout, int], StoredModel], tmp_path: Path, stores: str
) -> None:
    names = [tmp_path / (f"store-{n}" if stores == "ten stores" else "store") for n in range(MANY)]
    models = [make_version(Layout(name), number) for number, name in enumerate(names)]
    assert len({layer.digest for model in models for layer in model.manifest.layers}) < MANY * 4
    repository = f"crowd/{stores.replace(' ', '-')}"
    tags = [f"{real_registry.host}/{repository}:{number}" for number in range(MANY)]
    pushed = run_at_once(
        [("model", "push", f"crowd:{number}", tags[number], "--store", name) for number, name in enumerate(names)]
    )
    assert [each["digest"] for each in pushed] == [model.digest for model in models]
    with Registry(real_registry.host) as registry:
        found = registry.get_tags(repository)
        assert {f"{number}" for number in range(MANY)} <= set(found)
        for number, model in enumerate(models):
            assert registry.get_manifest(repository, str(number)).descriptor.digest == model.digest
    # Each alone, so that none is whole thanks to another.
    pulled = run_at_once(
        [("model", "pull", tag, "--store", tmp_path / f"fresh-{number}") for number, tag in enumerate(tags)]
    )
    assert [each["digest"] for each in pulled] == [model.digest for model in models]
    check_whole(*(tmp_path / f"fresh-{number}" for number in range(MANY)))


def test_ten_pulls_into_one_store(
    real_registry: Any, make_version: Callable[[Layout, int], StoredModel], tmp_path: Path
) -> None:
    source, target = Layout(tmp_path / "source"), tmp_path / "target"
    models = [make_version(source, number) for number in range(MANY)]
    remote = f"{real_registry.host}/crowd/pulled"
    run_at_once([("model", "push", f"crowd:{n}", f"{remote}:{n}", "--store", source.root) for n in range(MANY)])
    pulled = run_at_once([("model", "pull", f"{remote}:{n}", "--store", target) for n in range(MANY)])
    assert [each["digest"] for each in pulled] == [model.digest for model in models]
    assert {ref.digest for ref in RefStore(Layout(target)).list("models")} == {model.digest for model in models}
    check_whole(target)
    left = [path.name for path in (target / "tmp").iterdir()]
    assert not [name for name in left if name.startswith("part-")], left


def test_collecting_while_others_push_and_pull(
    real_registry: Any, make_version: Callable[[Layout, int], StoredModel], tmp_path: Path
) -> None:
    """The collector takes what nothing needs, at once, and nothing of what is on its way out or in."""
    source = Layout(tmp_path / "source")
    models = [make_version(source, number) for number in range(5)]
    unused = [source.put(b"unused %d" % number, "application/octet-stream").digest for number in range(50)]
    remote = f"{real_registry.host}/crowd/collected"
    done = run_at_once(
        [
            *[("model", "push", f"crowd:{n}", f"{remote}:{n}", "--store", source.root) for n in range(5)],
            *[("store", "gc", "--grace", "0s", "--store", source.root) for _ in range(3)],
        ]
    )
    assert [each["digest"] for each in done[:5]] == [model.digest for model in models]
    assert not any(source.has(digest) for digest in unused)
    target = tmp_path / "target"
    run_at_once(
        [
            *[("model", "pull", f"{remote}:{n}", "--store", target) for n in range(5)],
            *[("store", "gc", "--store", target) for _ in range(3)],
        ]
    )
    check_whole(source.root, target)
    assert {ref.digest for ref in RefStore(Layout(target)).list("models")} == {model.digest for model in models}
