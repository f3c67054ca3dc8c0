"""Builds one after another, with the real probe: each gives what a build from nothing gives, with less work."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build import stamps, standing, trace
from bentotool.build.api import BuildOptions, BuildResult, build_bento
from bentotool.build.bentos import BentoStore
from bentotool.build.wheel import make_wheel
from bentotool.errors import ConfigError, UnsafeError
from bentotool.oci.layout import Layout
from bentotool.plugins import load_plugins

SERVICE = """
import os, pathlib
import bentotool
import lib.more

here = pathlib.Path(__file__).parent
token = os.environ.get("TOKEN")

@bentotool.service(labels={"mode": os.environ.get("MODE", "none"), "words": here.joinpath("words.txt").read_text()})
class Iris:
    @bentotool.api
    def predict(self, x: float) -> float:
        return x * lib.more.X
"""


@pytest.fixture(autouse=True)
def _serving(require_package: Callable[[str], None]) -> None:
    require_package("litestar")


@pytest.fixture
def real(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that is really imported, on a clock that settles within 20 ms; bentotool itself stands still."""
    monkeypatch.setattr(stamps, "SETTLED_NS", 20_000_000)
    monkeypatch.setattr(trace, "SETTLED_NS", 20_000_000)
    monkeypatch.setattr(standing, "_tool", lambda: "the same")
    (project / "service.py").write_text(SERVICE)
    (project / "words.txt").write_text("few")
    (project / "notes.md").write_text("nothing")
    return project


def build(folder: Path, store: Path, **options: Any) -> BuildResult:
    time.sleep(0.08)
    chosen = BuildOptions(runtime_requirements=("fakestar>=2",), **{"platform": "linux/amd64", **options})
    return build_bento(folder, layout=Layout(store), plugins=load_plugins(), options=chosen)


def cold(folder: Path, scratch: Path) -> str:
    """The digest that a copy of the project gives in a new store."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch / "copy")
    return build(scratch / "copy", scratch / "store").digest


def test_nothing_changed_nothing_is_done(real: Path, store: Path) -> None:
    first, second = build(real, store), build(real, store, explain=True)
    assert (first.cached["build"], second.cached["build"]) == (False, True)
    assert (second.digest, second.tag, second.size) == (first.digest, first.tag, first.size)
    assert (second.files, second.packages, second.lock_reused) == (first.files, first.packages, True)
    assert second.explained is not None
    assert (second.explained["changes"], list(second.seconds)) == ([], ["check"])
    for name in ("service.py", "bentofile.yaml", "bento.lock"):
        os.utime(real / name)
        assert build(real, store).cached["build"] is True, f"{name} only looks newer"
    assert not build(real, store, fresh=True).cached["build"]
    assert build(real, store, labels={"a": "b"}).digest != first.digest
    assert build(real, store).digest == first.digest == BentoStore(Layout(store)).get("iris").digest


def test_a_bento_that_is_gone_or_damaged_is_made_again(real: Path, store: Path) -> None:
    first, layout = build(real, store), Layout(store)
    blob = layout.blob_path(BentoStore(layout).get(first.tag).manifest.layers[0].digest)
    blob.chmod(0o644)
    blob.unlink()
    assert (build(real, store).digest, layout.verify_blob(f"sha256:{blob.name}")) == (first.digest, True)
    BentoStore(layout).refs.delete("bentos", first.name, first.version)
    assert not build(real, store).cached["build"]
    assert BentoStore(layout).get(first.tag).digest == first.digest


def test_what_the_import_read_is_what_makes_it_run_again(
    real: Path, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert build(real, store).cached["service"] is False
    (real / "notes.md").write_text("something")
    result = build(real, store)
    assert (result.cached["service"], result.cached["files_read"]) == (True, 1)
    (real / "words.txt").write_text("many")
    result = build(real, store, explain=True)
    assert (result.cached["service"], dict(result.plan.labels)["words"]) == (False, "many")  # type: ignore[union-attr]
    assert result.explained is not None
    assert {(c["input"], c["name"]) for c in result.explained["changes"]} == {
        ("files", "words.txt"), ("service", "labels"), ("service", "services"),
    }  # fmt: skip
    assert [s["because"] for s in result.explained["steps"] if s["step"] == "service"] == ["words.txt changed"]
    monkeypatch.setenv("TOKEN", "hush-hush")
    assert build(real, store).cached["service"] is False
    monkeypatch.setenv("MODE", "loud")
    result = build(real, store)
    assert (result.cached["service"], dict(result.plan.labels)["mode"]) == (False, "loud")  # type: ignore[union-attr]
    assert build(real, store).cached["build"] is True
    monkeypatch.setenv("UNRELATED", "1")
    assert build(real, store).cached["build"] is True
    (real / "lib" / "more.py").write_text("X = 2")
    assert build(real, store).cached["service"] is False
    text = "".join(path.read_text("latin-1") for path in (store / "cache" / "build").iterdir())
    assert "hush" not in text, "values of variables are kept by digest alone"


OUTSIDE = """
import os, sys
import bentotool
{}
@bentotool.service(labels={{"x": str(x)}})
class Iris:
    @bentotool.api
    def predict(self, x: float) -> float:
        return x
"""


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("x = open('{tmp}/far.txt').read()", lambda tmp: (tmp / "far.txt").write_text("2")),
        ("x = sorted(os.listdir('{tmp}/far'))", lambda tmp: (tmp / "far" / "b").write_text("")),
        ("sys.path.append('{tmp}/far'); import far as f; x = f.X", lambda tmp: (tmp / "far/far.py").write_text("X=2")),
        (
            "sys.path.append('{tmp}/far')\ntry:\n  import b as f; x = 1\nexcept ImportError: x = 0",
            lambda tmp: (tmp / "far/b.py").write_text(""),
        ),
        ("x = os.path.exists('late.txt')", lambda tmp: (tmp / "project/late.txt").write_text("")),
        ("x = os.path.exists('lib/late.txt')", lambda tmp: (tmp / "project/lib/late.txt").write_text("")),
        ("x = dict(os.environ).get('SEEN')", lambda tmp: os.environ.__setitem__("SEEN", "2")),
    ],
)
def test_what_lies_outside_counts_too(
    real: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    change: Callable[[Path], object],
) -> None:
    monkeypatch.setenv("SEEN", "1")
    (tmp_path / "far").mkdir()
    (tmp_path / "far.txt").write_text("1")
    (tmp_path / "far" / "far.py").write_text("X=1")
    (real / "service.py").write_text(OUTSIDE.format(code.format(tmp=tmp_path.as_posix())))
    first = build(real, store)
    assert build(real, store).cached["build"] is True
    change(tmp_path)
    second = build(real, store)
    assert (second.cached["service"], second.digest != first.digest) == (False, True)


def test_an_import_that_cannot_be_followed_is_repeated(real: Path, store: Path) -> None:
    (real / "service.py").write_text(
        OUTSIDE.format("import subprocess; x = subprocess.run([sys.executable, '-V'], check=True).returncode")
    )
    assert [build(real, store).cached["service"] for _ in range(2)] == [False, False]


def edit(folder: Path, chance: random.Random) -> None:
    """One change of a kind that happens."""
    kind = chance.randrange(9)
    number = chance.randrange(3)
    if kind == 0:
        (folder / "words.txt").write_text(f"{number}")
    elif kind == 1:
        (folder / "lib" / "more.py").write_text(f"X = {number}\n")
    elif kind == 2:
        (folder / f"new{number}.txt").write_text("new")
    elif kind == 3:
        (folder / f"new{number}.txt").unlink(missing_ok=True)
    elif kind == 4:
        text = (folder / "bentofile.yaml").read_text().partition("\ndescription")[0].rstrip()
        (folder / "bentofile.yaml").write_text(f"{text}\ndescription: about {number}\n")
    elif kind == 5:
        (folder / ".bentoignore").write_text(f"new{number}.txt\n")
    elif kind == 6:
        os.utime(folder / "service.py", (number, number))
    elif kind == 7:
        (folder / "words.txt").rename(folder / "moved.txt")
        (folder / "moved.txt").rename(folder / "words.txt")
    else:
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / f"{number}.md").write_text(f"{number}")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_build_after_edits_is_a_build_from_nothing(real: Path, store: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    build(real, store)
    for step in range(6):
        for _ in range(chance.randrange(3)):
            edit(real, chance)
        assert build(real, store).digest == cold(real, tmp_path / "cold"), f"step {step}"


def test_damage_to_what_is_kept_costs_time_alone(real: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(real, store)
    for path in (store / "cache" / "build").iterdir():
        path.write_bytes(path.read_bytes()[:-3] + b"???")
    assert (build(real, store).digest, build(real, store).cached["build"]) == (first.digest, True)
    shutil.rmtree(store / "cache")
    (store / "cache").write_text("no folder")
    assert [build(real, store).digest for _ in range(2)] == [first.digest] * 2


def test_the_json_form_has_all(real: Path, store: Path) -> None:
    first = build(real, store, explain=True)
    document = json.loads(json.dumps(first.to_dict()))
    assert document["explain"]["since"] is None
    assert set(document["cached"]) == {"build", "service", "lock", "wheel", "bento", "files", "files_read"}
    assert [step["step"] for step in document["explain"]["steps"]] == list(document["seconds"])
    dry = build(real, store, dry_run=True, explain=True)
    assert dry.explained is not None
    assert (dry.digest, dry.version, dry.explained["since"]["digest"]) == ("", first.version, first.digest)
    assert dry.explained["changes"] == []


def test_whether_something_exists_is_noticed(real: Path, store: Path, tmp_path: Path) -> None:
    elsewhere, left_out = tmp_path / "elsewhere", real / "out" / "flag"
    left_out.parent.mkdir()
    config = real / "bentofile.yaml"
    config.write_text(config.read_text() + "exclude: [out/]\n")
    asking = (
        f"os.path.isdir({str(elsewhere)!r}), (here / 'out' / 'flag').exists(), os.access({str(elsewhere)!r}, os.R_OK)"
    )
    source = real / "service.py"
    source.write_text(source.read_text().replace("labels={", f'labels={{"there": str([{asking}]), '))

    def label() -> tuple[str, bool]:
        result = build(real, store)
        return BentoStore(Layout(store)).get("iris").labels["there"], bool(result.cached["build"])

    assert label() == ("[False, False, False]", False)
    assert label() == ("[False, False, False]", True)
    elsewhere.write_text("")
    assert label() == ("[False, False, True]", False)
    elsewhere.unlink()
    elsewhere.mkdir()
    assert label() == ("[True, False, True]", False)
    left_out.write_text("")
    assert label() == ("[True, True, True]", False)
    assert label() == ("[True, True, True]", True)


def test_a_service_that_is_left_out_of_its_bento(real: Path, store: Path) -> None:
    config = real / "bentofile.yaml"
    plain = config.read_text()
    for pattern in ("service.py", "*.py"):
        config.write_text(f"{plain}exclude: ['{pattern}']\n")
        with pytest.raises(ConfigError, match=r"^service\.py is the service's, and exclude"):
            build(real, store)
    config.write_text(f"{plain}exclude: [lib/]\n")
    notes: list[str] = []
    options = BuildOptions(runtime_requirements=("fakestar>=2",), platform="linux/amd64")
    build_bento(real, layout=Layout(store), plugins=load_plugins(), options=options, note=notes.append)
    assert [note for note in notes if note.startswith("lib/more.py: imported by the service and left out")]
    config.write_text(plain)
    notes.clear()
    build_bento(real, layout=Layout(store), plugins=load_plugins(), options=options, note=notes.append)
    assert not notes


def test_a_service_outside_of_the_project_is_not_even_imported(real: Path, store: Path, tmp_path: Path) -> None:
    source, ran = tmp_path / "elsewhere.py", tmp_path / "ran"
    source.write_text(f"open({str(ran)!r}, 'w').close()\n{SERVICE}")
    (real / "service.py").unlink()
    (real / "service.py").symlink_to(source)
    with pytest.raises(UnsafeError, match=r"'service\.py' leads outside the project"):
        build(real, store)
    assert not ran.exists()
    (real / "service.py").unlink()
    source.rename(real / "real.py")
    (real / "service.py").symlink_to("real.py")
    assert build(real, store).files
    assert ran.exists()


def test_a_packed_wheel_that_keeps_its_version_is_explained(real: Path, store: Path) -> None:
    wheel, config = real / "mine-1.0-py3-none-any.whl", real / "bentofile.yaml"
    config.write_text(config.read_text() + f"  wheels: [{wheel.name}]\nexclude: ['*.whl']\n")
    wheel.write_bytes(make_wheel("mine", "1.0", {"mine.py": b"VALUE = 1\n"}, []))
    first = build(real, store)
    wheel.write_bytes(make_wheel("mine", "1.0", {"mine.py": b"VALUE = 2\n"}, []))
    second = build(real, store, explain=True)
    assert second.digest != first.digest
    assert second.explained is not None
    (change,) = second.explained["changes"]
    assert (change["input"], change["change"], change["name"]) == ("packages", "changed", "mine")
    assert change["before"].startswith("1.0, files ")
    assert change["after"].startswith("1.0, files ")
    assert change["before"] != change["after"]
    wheel.unlink()
    wheel.with_name("mine-1.1-py3-none-any.whl").write_bytes(make_wheel("mine", "1.1", {"mine.py": b""}, []))
    config.write_text(config.read_text().replace("mine-1.0", "mine-1.1"))
    third = build(real, store, explain=True)
    assert third.explained is not None
    assert {"input": "packages", "change": "changed", "name": "mine", "before": "1.0", "after": "1.1"} in (
        third.explained["changes"]
    )


def test_what_every_plan_says_is_said_again(real: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool.build.planning import Work

    plan, said = Work.plan, []

    def noting(work: Work) -> object:
        work.note("take care")
        return plan(work)

    monkeypatch.setattr(Work, "plan", noting)
    cached = []
    for _ in range(3):
        time.sleep(0.08)
        options = BuildOptions(runtime_requirements=("fakestar>=2",), platform="linux/amd64")
        result = build_bento(real, layout=Layout(store), plugins=load_plugins(), options=options, note=said.append)
        cached.append(result.cached["build"])
    assert (said, cached) == (["take care"] * 3, [False, False, True])


def test_a_model_that_is_looked_up_or_named_counts(real: Path, store: Path) -> None:
    from bentotool.models.manifest import ModelDetails, ModelFile
    from bentotool.models.store import ModelStore

    def add(content: bytes) -> str:
        layout = Layout(store)
        blob = layout.put(content, "application/octet-stream")
        details = ModelDetails("", "raw", "data", "iris.bin", {"inputs": [], "outputs": []}, (), {}, {})
        return ModelStore(layout).add("iris", None, [ModelFile("iris.bin", blob.size, blob.digest)], details).tag

    first = add(b"one")
    looked = OUTSIDE.format("x = bentotool.models.get('iris:latest').tag")
    named = looked.replace("class Iris:", "class Iris:\n    model = bentotool.models.BentoModel('iris:latest')")
    for source in (looked, named):
        (real / "service.py").write_text(source)
        before = build(real, store)
        assert dict(before.plan.labels)["x"] == first  # type: ignore[union-attr]
        assert build(real, store).cached["build"] is True
        second = add(source.encode())
        after = build(real, store)
        assert (after.cached["service"], dict(after.plan.labels)["x"]) == (False, second)  # type: ignore[union-attr]
        assert after.digest != before.digest
        first = second
