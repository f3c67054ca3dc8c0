"""``store gc``, ``verify``, ``du``, archives, filters and ``--link`` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "templates" / "quickstart" / "iris.onnx"


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], require_package: Callable[[str], None]
) -> Callable[..., tuple[int, str, str]]:
    require_package("bentotool_onnx")

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(each) for each in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


@pytest.fixture
def ask(run: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    def command(*arguments: object) -> Any:
        status, out, err = run(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)

    return command


def blob(store: Path, model: dict[str, Any]) -> Path:
    return store / "blobs" / "sha256" / model["files"][0]["digest"][7:]


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(b"X" + data[1:])


def test_filters(run: Callable[..., Any], ask: Callable[..., Any]) -> None:
    ask("model", "import", MODEL, "--name", "a", "--label", "team=x", "--label", "note=k=v")
    ask("model", "import", MODEL, "--name", "b", "--label", "team=y")

    def names(*filters: str) -> list[str]:
        options = [word for each in filters for word in ("--filter", each)]
        return sorted(item["name"] for item in ask("model", "list", *options))

    assert names() == names("framework=onnx") == names("label=team") == names("safety=data") == ["a", "b"]
    assert names("label=team=x") == names("label=note=k=v") == names("framework=onnx", "label=team=x") == ["a"]
    assert names("label=team=z") == names("framework=other") == names("label=team=x", "label=team=y") == []
    assert names("label.team=x") == names("label.note=k=v") == ["a"]
    for wrong in ("team=x", "label", "label=", "label.=x", "framework", "name=a", "safety=bogus", "safety="):
        status, _, err = run("model", "list", "--filter", wrong)
        assert (status, "--filter" in err) == (2, True)
    assert "data, program, pickle" in run("model", "list", "--filter", "safety=bogus")[2]
    for command in (("model", "list"), ("list",)):
        status, _, err = run(*command, "registry.example/team/net", "--filter", "label=a")
        assert (status, "leave it out" in err) == (2, True)
    heads, *rows = run("model", "list")[1].splitlines()
    assert heads.split()[:3] == ["TAG", "FRAMEWORK", "SAFETY"]
    assert [row.split()[1:3] for row in rows] == [["onnx", "data"]] * 2
    assert [item["labels"] for item in ask("model", "list", "a")] == [{"team": "x", "note": "k=v"}]
    status, out, err = run("model", "list", "--filter", "label=team=z")
    assert (status, out) == (0, "")
    assert "no model fits" in err


def test_collecting(run: Callable[..., Any], ask: Callable[..., Any]) -> None:
    ask("model", "import", MODEL, "--name", "a")
    ask("model", "delete", "a", "--yes")
    assert ask("store", "gc")["young"] == 5
    planned = ask("store", "gc", "--dry-run", "--grace", "0s")
    assert planned["dry_run"] is True
    assert ask("store", "du")["unreferenced"] == planned["size"] > 0
    status, out, _ = run("store", "gc", "--grace", "0")
    assert status == 0
    assert "5 blobs" in out
    assert ask("store", "du")["stored"] == 0
    status, _, err = run("store", "gc", "--grace", "soon")
    assert (status, "--grace" in err) == (2, True)


def test_verify_names_the_models_and_exits_4(run: Callable[..., Any], ask: Callable[..., Any], store: Path) -> None:
    model = ask("model", "import", MODEL, "--name", "a", "--version", "1")
    ask("model", "import", MODEL, "--name", "b", "--version", "1")
    assert ask("store", "verify")["ok"] is True
    damage(blob(store, model))
    status, out, _ = run("store", "verify", "--json")
    (fault,) = json.loads(out)["faults"]
    assert status == 4
    assert (fault["kind"], sorted(fault["touches"])) == ("damaged", ["models/a:1", "models/b:1"])
    assert len(ask("model", "list")) == 2
    status, out, err = run("store", "verify", "--repair")
    assert status == 4
    assert "a:1" in out + err
    ask("model", "import", MODEL, "--name", "a", "--version", "1")
    assert ask("store", "verify")["ok"] is True


def test_du(run: Callable[..., Any], ask: Callable[..., Any]) -> None:
    for name in ("a", "b"):
        ask("model", "import", MODEL, "--name", name, "--version", "1")
    usage = ask("store", "du")
    assert usage["shared"] == MODEL.stat().st_size
    assert {item["tag"] for item in usage["items"]} == {"a:1", "b:1"}
    assert all(item["size"] - item["alone"] == usage["shared"] for item in usage["items"])
    status, out, _ = run("store", "du")
    assert status == 0
    assert "unreferenced" in out
    assert "quarantine" in out
    assert usage["unfinished"] == usage["quarantine"] == 0


def test_a_model_travels_as_a_file(run: Callable[..., Any], ask: Callable[..., Any], tmp_path: Path) -> None:
    model = ask("model", "import", MODEL, "--name", "a", "--version", "1", "--label", "team=x")
    assert model.pop("left_out") == []
    wrote = ask("model", "export", "a", tmp_path / "a.tar")
    assert wrote["digest"] == model["digest"]
    status, _, err = run("model", "export", "a", tmp_path / "a.tar")
    assert (status, "--force" in err) == (1, True)
    assert ask("model", "export", "a:1", tmp_path / "a.tar", "--force") == wrote
    other = ("--store", tmp_path / "other")
    assert {**ask("model", "import-archive", tmp_path / "a.tar", *other), "created": model["created"]} == model
    renamed = ask("model", "import-archive", tmp_path / "a.tar", "--name", "c", *other)
    assert (renamed["tag"], renamed["digest"]) == ("c:1", model["digest"])
    assert ask("store", "verify", *other)["ok"] is True
    assert Path(ask("model", "path", "c", *other)["path"], MODEL.name).read_bytes() == MODEL.read_bytes()
    status, _, err = run("import", tmp_path / "a.tar")
    assert (status, "import-archive" in err) == (4, True)
    assert run("model", "import-archive", tmp_path / "none.tar")[0] == 3
    assert run("model", "export", "a", tmp_path / "none" / "a.tar")[0] == 3


def test_python_writes_the_same_archive(ask: Callable[..., Any], tmp_path: Path) -> None:
    from bentotool import models

    ask("model", "import", MODEL, "--name", "a", "--version", "1")
    ask("model", "export", "a", tmp_path / "by-command.tar")
    written = models.export_model("a:latest", tmp_path)
    assert written == str(tmp_path / "a-1.tar")
    assert Path(written).read_bytes() == (tmp_path / "by-command.tar").read_bytes()


def test_link_says_what_it_means(run: Callable[..., Any], ask: Callable[..., Any], tmp_path: Path, store: Path) -> None:
    source = tmp_path / "linked.onnx"
    source.write_bytes(MODEL.read_bytes())
    status, _, err = run("model", "import", source, "--link", "--version", "1", "--name", "a")
    assert status == 0
    assert "read-only" in err
    model = ask("model", "show", "a")
    assert os.path.samefile(source, blob(store, model))
    damage(source)
    os.utime(source, ns=(1, 1))
    assert run("model", "path", "a")[0] == 4
    assert run("store", "verify")[0] == 4
    assert run("model", "list")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="counts blocks of the disk, reads /proc")
def test_a_sparse_file_grows_the_disk_by_no_more_than_itself(tmp_path: Path) -> None:
    """And memory stays below it. 128 MiB here; 1 and 4 GiB are in tests/benchmarks/store."""
    program = (
        "import sys; from pathlib import Path; from bentotool.oci.layout import Layout;"
        "from bentotool.interfaces import SourceFile; from bentotool.models.intake import take_files;"
        "p = Path(sys.argv[1]); take_files(Layout(Path(sys.argv[2])), 'm', [SourceFile(p, p.name)], lambda n: None);"
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
    )
    source, size = tmp_path / "holes.bin", 128 << 20
    with source.open("wb") as file:
        file.truncate(size)
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "store").rglob("*"))
    assert used <= size + (1 << 20)
    assert int(done.stdout) * 1024 < size


def test_deleting_a_model_that_a_bento_uses_says_so_and_keeps_it(
    run: Callable[..., Any], ask: Callable[..., Any], make_bento: Callable[..., Any], store: Path
) -> None:
    from bentotool.models.store import ModelStore
    from bentotool.oci.layout import Layout

    ask("model", "import", MODEL, "--name", "iris", "--version", "1")
    layout = Layout(store)
    models = ModelStore(layout)
    model = models.get("iris")
    bento = make_bento(layout, [model])
    status, out, err = run("model", "delete", "iris", "--yes")
    assert (status, out) == (0, "deleted iris:1\n")
    assert f"by: {bento.ref}" in err
    assert "bentotool store gc" in err
    ask("store", "gc", "--grace", "0s")
    assert models.by_digest("iris", model.digest).files == model.files
    status, out, err = run("delete", bento.ref, "--yes")
    assert "used" not in err
    assert "bentotool store gc" in err


def test_one_model_is_verified(run: Callable[..., Any], ask: Callable[..., Any], store: Path) -> None:
    model = ask("model", "import", MODEL, "--name", "a")
    assert ask("model", "verify", "a")["verified"] is True
    damage(blob(store, model))
    status, out, err = run("model", "verify", "a")
    assert (status, out) == (4, "")
    assert "iris.onnx is damaged" in err
    assert run("model", "verify", "b")[0] == 3


def test_a_tag_replaces_other_content_only_when_told(run: Callable[..., Any], ask: Callable[..., Any]) -> None:
    ask("model", "import", MODEL, "--name", "a", "--version", "1.0")
    other = ask("model", "import", MODEL, "--name", "a", "--version", "2.0", "--label", "team=x")
    status, _, err = run("model", "tag", "a:1.0", "2.0")
    assert status != 0
    assert "--replace" in err
    assert ask("model", "show", "a:2.0")["digest"] == other["digest"]
    done = ask("model", "tag", "a:1.0", "2.0", "--replace")
    assert done["digest"] != other["digest"]


def test_a_damaged_reference_is_named_and_made_again(
    run: Callable[..., Any], ask: Callable[..., Any], store: Path
) -> None:
    made = ask("model", "import", MODEL, "--name", "v", "--version", "1", "--label", "team=x")
    newest = ask("model", "import", MODEL, "--name", "v", "--version", "2")
    reference = store / "refs" / "models" / "v" / "1.json"
    reference.write_text("{")
    status, out, _ = run("store", "verify")
    assert status == 4
    assert "models/v:1" in out
    status, out, _ = run("store", "verify", "--repair", "--json")
    (fault,) = json.loads(out)["faults"]
    assert (fault["touches"], fault["rebuilt"]) == (["models/v:1"], True)
    shown = ask("model", "show", "v:1")
    assert (shown["digest"], shown["labels"]) == (made["digest"], {"team": "x"})
    assert ask("model", "show", "v")["digest"] == newest["digest"]
    assert ask("store", "verify")["ok"]


def test_a_damaged_reference_that_nothing_lists_is_set_aside(
    run: Callable[..., Any], ask: Callable[..., Any], store: Path
) -> None:
    ask("model", "import", MODEL, "--name", "v", "--version", "1")
    (store / "refs" / "models" / "v" / "1.json").write_text("{")
    (store / "index.json").write_text("{")
    status, out, err = run("store", "verify", "--repair")
    assert status == 4
    assert "models/v:1" in out
    assert "models/v:1 is named no more: the next gc removes its content" in err
    assert ask("store", "verify")["ok"]


@pytest.mark.parametrize("state", ["missing", "damaged"])
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_the_files_of_the_layout_are_written_again(
    run: Callable[..., Any], ask: Callable[..., Any], store: Path, name: str, state: str
) -> None:
    ask("model", "import", MODEL, "--name", "v", "--version", "1")
    before = json.loads((store / name).read_bytes())
    (store / name).unlink()
    if state == "damaged":
        (store / name).write_text("[")
    for options in ((), ("--repair",)):
        status, out, _ = run("store", "verify", *options, "--json")
        assert status == 4
        (fault,) = json.loads(out)["faults"]
        assert (fault["kind"], fault["what"]) == ("layout", str(store / name))
    assert json.loads((store / name).read_bytes()) == before
    assert ask("store", "verify")["ok"]
