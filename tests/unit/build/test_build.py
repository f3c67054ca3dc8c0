"""Plan, pack, store: a whole build over a wheelhouse and a stubbed probe."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore
from bentotool.build.lock import read_lock
from bentotool.build.media import CODE, LOCK
from bentotool.build.probe import Probe
from bentotool.errors import (
    BentotoolError,
    BuildError,
    ConfigError,
    ConflictError,
    NotFoundError,
    UsageError,
    VerificationError,
)
from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.layout import Layout
from bentotool.oci.tar import untar

Builder = Any


def add_model(layout: Layout, name: str = "iris", content: bytes = b"weights") -> StoredModel:
    blob = layout.put(content, "application/octet-stream")
    signature = {"inputs": [{"name": "X", "dtype": "float32", "shape": [None, 4]}], "outputs": []}
    details = ModelDetails("", "raw", "data", "iris.bin", signature, ("tinydep",), {}, {})
    return ModelStore(layout).add(name, None, [ModelFile("iris.bin", blob.size, blob.digest)], details)


def test_a_bento_holds_what_it_should(project: Path, builder: Builder) -> None:
    model = add_model(builder.layout)
    builder.probe = Probe("service:Iris", "Iris", models=("iris:latest",), schema={"name": "iris"})
    result = builder(project, labels={"team": "a"})
    assert (result.name, result.lock_reused, len(result.version)) == ("iris", False, 12)

    store = BentoStore(builder.layout)
    bento = store.get("iris:latest")
    assert (bento.digest, bento.size, bento.tag) == (result.digest, result.size, result.tag)
    assert (bento.service, bento.python, bento.labels) == ("service:Iris", "3.12", {"team": "a"})
    assert [(item.alias, item.digest, item.path) for item in bento.models] == [
        ("iris:latest", model.digest, "models/iris")
    ]
    assert bento.manifest.annotations["io.bentotool.kind"] == "bento"
    assert store.requirements(bento) == (project / "bento.lock").read_text()
    assert store.api(bento)["schema"] == {"name": "iris"}

    with builder.layout.open_layer(bento.layer(CODE)) as stream:
        files = {entry.name: b"".join(pieces) for entry, pieces in untar(stream)}
    assert sorted(files) == [
        "home/bento/app/bentofile.yaml",
        "home/bento/app/lib/more.py",
        "home/bento/app/service.py",
        "home/bento/bento.json",
    ]
    document = json.loads(files["home/bento/bento.json"])
    assert document["models"][0]["alias"] == "iris:latest"
    assert document["models"][0]["main_file"] == "iris.bin"
    assert document["models"][0]["signature"]["inputs"][0]["shape"] == [None, 4]
    assert document["version"] == result.version


def test_a_bento_on_disk(project: Path, builder: Builder) -> None:
    model = add_model(builder.layout)
    builder.probe = Probe("service:Iris", "iris", models=("iris:latest", "iris"))
    builder(project)
    store = BentoStore(builder.layout)
    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(lambda _: store.materialise(BentoStore(builder.layout).get("iris")), range(8)))
    (root,) = roots
    assert (root / "home/bento/app/service.py").read_bytes() == b"class Iris:\n    pass\n"
    assert (root / "opt/bentotool/runtime/bentotool/errors.py").is_file()
    weights = root / "models/iris/iris.bin"
    assert weights.samefile(builder.layout.blob_path(model.files[0].sha256)), "weights lie on disk once"
    assert not list(builder.layout.temporary().iterdir())


def test_what_models_need_is_locked(project: Path, builder: Builder) -> None:
    add_model(builder.layout)
    (project / "bentofile.yaml").write_text((project / "bentofile.yaml").read_text().replace("[tiny]", "[]"))
    builder.probe = Probe("service:Iris", "iris", models=("iris",))
    assert builder(project).plan.lock.pins == ("fakestar==2.1", "tinydep==1.5")


def test_the_same_inputs_give_the_same_bento(
    project: Path, builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = builder(project)
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    old = os.umask(0o077)
    try:
        for name in ("lib/more.py", "bentofile.yaml", "service.py"):  # another order of creation
            (other / name).parent.mkdir(exist_ok=True)
            (other / name).write_bytes((project / name).read_bytes())
            os.utime(other / name, (1, 1))
        (other / "__pycache__").mkdir()
        (other / "service.py").chmod(0o777)
        monkeypatch.setenv("TZ", "Pacific/Kiritimati")
        if hasattr(time, "tzset"):
            time.tzset()
        second = builder(other)
    finally:
        os.umask(old)
        monkeypatch.delenv("TZ")
        if hasattr(time, "tzset"):
            time.tzset()
    assert (second.digest, second.version) == (first.digest, first.version)
    (other / "service.py").write_bytes(b"class Iris:\n    x = 1\n")
    assert builder(other).digest != first.digest


def test_nothing_depends_on_the_hash_seed(project: Path, builder: Builder, wheelhouse: Path) -> None:
    import subprocess

    builder(project)  # makes the lock
    code = (
        "import sys; from pathlib import Path; from bentotool.build import api, planning;"
        "from bentotool.build.probe import Probe;"
        "from bentotool.oci.layout import Layout; from bentotool.plugins import load_plugins;"
        "planning.probe_service = lambda *a, **k: Probe('service:Iris', 'iris', labels={'b': '1', 'a': '2'});"
        "o = api.BuildOptions(runtime_requirements=('fakestar>=2',), locked=True);"
        "layout = Layout(Path(sys.argv[2]));"
        "print(api.build_bento(Path(sys.argv[1]), layout=layout, plugins=load_plugins(), options=o).digest)"
    )
    digests = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(project), str(project.parent / f"store{seed}")],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_building_again_changes_nothing(project: Path, builder: Builder) -> None:
    first, second = builder(project), builder(project, locked=True)
    assert (first.digest, second.lock_reused) == (second.digest, True)
    assert len(BentoStore(builder.layout).list()) == 1


def test_latest_is_what_was_built_last(project: Path, builder: Builder) -> None:
    first = builder(project)
    service = project / "service.py"
    before = service.read_bytes()
    service.write_bytes(b"class Iris: ...\n")
    builder(project)
    service.write_bytes(before)
    assert builder(project).digest == first.digest
    assert BentoStore(builder.layout).get("iris").digest == first.digest


def test_a_version_stands_for_one_content(project: Path, builder: Builder) -> None:
    first = builder(project, version="1.0")
    assert builder(project, version="1.0").digest == first.digest
    (project / "service.py").write_text("class Iris: ...\n")
    with pytest.raises(ConflictError) as caught:
        builder(project, version="1.0")
    assert "--replace" in str(caught.value.hint)
    assert builder(project, version="1.0", replace=True).digest != first.digest


def test_dry_run_writes_nothing(project: Path, builder: Builder, store: Path) -> None:
    before = sorted(project.rglob("*"))
    result = builder(project, dry_run=True)
    assert (sorted(project.rglob("*")), store.exists()) == (before, False)
    assert [file["path"] for file in result.plan.to_dict()["files"]] == ["bentofile.yaml", "lib/more.py", "service.py"]
    assert builder(project).version == result.version


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="needs modes")
def test_a_folder_that_cannot_be_written(project: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("bentotool.build.planning.write_atomic", refuse)
    assert builder(project).digest
    assert "bento.lock is not kept" in builder.notes[0]


def test_the_lock_keeps_its_platform(project: Path, builder: Builder) -> None:
    builder(project, platform="linux/arm64")
    result = builder(project, platform=None)
    assert (result.lock_reused, result.plan.lock.platform) == (True, "linux/arm64")
    lock = read_lock(project)
    assert lock
    assert lock.platform == "linux/arm64"


def test_what_is_wrong_is_said(project: Path, builder: Builder) -> None:
    with pytest.raises(UsageError, match="--locked"):
        builder(project, locked=True)
    with pytest.raises(UsageError, match="unknown platform"):
        builder(project, platform="windows/amd64")
    builder.probe = Probe("service:Iris", "iris", models=("absent:latest",))
    with pytest.raises(NotFoundError, match="absent:latest") as caught:
        builder(project)
    assert caught.value.hint == "bentotool model import FILE --name absent"
    builder.probe = Probe("service:Iris", "---")
    with pytest.raises(ConfigError, match="no Bento name"):
        builder(project)
    assert not BentoStore(builder.layout).list()


def test_two_versions_of_a_model_are_not_mixed(project: Path, builder: Builder) -> None:
    one, two = add_model(builder.layout), add_model(builder.layout, content=b"others")
    builder.probe = Probe("service:Iris", "iris", models=(one.tag, two.tag))
    with pytest.raises(ConfigError, match="in one Bento"):
        builder(project)


def test_a_file_that_changes_between_plan_and_pack(
    project: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bentotool.build import pack

    real = pack.pack

    def meddle(plan: Any, folder: Path, layout: Layout, **options: Any) -> Any:
        (project / "service.py").write_text("changed")
        return real(plan, folder, layout, **options)

    monkeypatch.setattr(pack, "pack", meddle)
    with pytest.raises(BuildError, match=r"service\.py changed"):
        builder(project)
    assert not BentoStore(builder.layout).list()
    assert not list(builder.layout.temporary().iterdir())


def test_a_model_changed_through_its_link_is_not_served(project: Path, builder: Builder, tmp_path: Path) -> None:
    model = add_model(builder.layout)
    builder.probe = Probe("service:Iris", "iris", models=(model.tag,))
    builder(project)
    store = BentoStore(builder.layout)
    bento = store.get("iris")
    blob = builder.layout.blob_path(model.files[0].sha256)
    builder.layout.linked.record(f"sha256:{blob.name}", blob.stat(), tmp_path / "w.bin")
    store.materialise(bento)
    os.utime(blob, (1, 1))
    with pytest.raises(VerificationError, match="changed through"):
        store.materialise(bento)


def test_names_tags_and_deletion(project: Path, builder: Builder) -> None:
    result = builder(project)
    store = BentoStore(builder.layout)
    assert store.tag("iris", "prod").digest == result.digest
    assert store.get(f"iris@{result.digest}").tag
    assert [ref.tag for ref in store.refs.matching("bentos", "iris:prod")] == ["prod"]
    for ref in store.refs.matching("bentos", "iris"):
        store.refs.delete("bentos", ref.name, ref.tag)
    with pytest.raises(NotFoundError):
        store.get("iris")


def tampered(layout: Layout, change: Callable[[dict[str, Any]], None]) -> str:
    """A Bento whose config says something else."""
    bento = BentoStore(layout).get("iris")
    config = json.loads(layout.read(bento.manifest.config.digest))
    change(config)
    stored = layout.put(json.dumps(config).encode(), bento.manifest.config.media_type)
    manifest = replace(bento.manifest, config=stored)
    return layout.put(manifest.to_bytes(), "application/vnd.oci.image.manifest.v1+json").digest


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../outside"}, {"path": "/etc"}, {"path": "home/bento/app"}, {"digest": "sha256:../x"}, {"path": 3},
        {"alias": None}, {"path": "models\\..\\x"},
    ],
)  # fmt: skip
def test_a_bento_from_elsewhere_cannot_lead_out(project: Path, builder: Builder, change: dict[str, Any]) -> None:
    add_model(builder.layout)
    builder.probe = Probe("service:Iris", "iris", models=("iris",))
    builder(project)
    digest = tampered(builder.layout, lambda config: config["models"][0].update(change))
    with pytest.raises(BentotoolError):
        BentoStore(builder.layout).adopt("evil", "1", digest)


def test_damage_in_the_store_is_noticed(project: Path, builder: Builder) -> None:
    builder(project)
    store = BentoStore(builder.layout)
    bento = store.get("iris")
    path = builder.layout.blob_path(bento.layer(CODE).digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"class Iris", b"class Evil"))
    with pytest.raises(BentotoolError, match="damaged"):
        store.materialise(bento)
    assert not (builder.layout.root / "views").exists() or not list((builder.layout.root / "views").rglob("*.py"))
    builder.layout.blob_path(bento.layer(LOCK).digest).unlink()
    with pytest.raises(NotFoundError):
        store.requirements(bento)
    shutil.rmtree(builder.layout.root / "refs")


def test_a_file_with_secrets_is_told_of(project: Path, builder: Any) -> None:
    (project / ".env").write_text("TOKEN=x")
    builder(project)
    assert [note for note in builder.notes if note.startswith(".env may hold secrets")]
    builder.notes.clear()
    config = project / "bentofile.yaml"
    config.write_text(config.read_text() + "include: ['*', .env]\n")
    builder(project)
    assert not [note for note in builder.notes if "secrets" in note]
