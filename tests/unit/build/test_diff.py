"""What a person reads when two Bentos differ."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.diff import Change, diff_bentos, patch_files
from bentotool.build.probe import Probe

Builder = Any


def route(name: str, output: str, **inputs: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in inputs.items()}
    return {
        "name": name, "route": f"/{name}", "method": "POST",
        "input": {"type": "object", "properties": properties}, "output": {"type": output},
    }  # fmt: skip


def probe(*routes: dict[str, Any]) -> Probe:
    return Probe("service:Iris", "iris", schema={"routes": list(routes)}, openapi={"openapi": "3.1.0"})


@pytest.fixture
def pair(project: Path, builder: Builder) -> tuple[BentoStore, StoredBento, StoredBento]:
    builder.probe = probe(route("a", "number", x="number"), route("gone", "string"))
    first = builder(project)
    (project / "lib" / "more.py").write_bytes(b"X = 2\n")
    (project / "picture.bin").write_bytes(b"\0\1\2")
    (project / "service.py").rename(project / "main.py")
    config = (project / "bentofile.yaml").read_text()
    config = config.replace("[tiny]", "['tiny<2']").replace("service:Iris", "main:Iris")
    (project / "bentofile.yaml").write_text(config + "labels: {team: a}\n")
    again = probe(route("a", "number", x="number", y="number"), route("new", "string"))
    builder.probe = dataclasses.replace(again, service="main:Iris")
    second = builder(project)
    store = BentoStore(builder.layout)
    return store, store.get(first.tag), store.get(second.tag)


def kinds(changes: tuple[Change, ...]) -> dict[str, str]:
    return {change.name: change.kind for change in changes}


def test_every_kind_of_difference_is_named(pair: tuple[BentoStore, StoredBento, StoredBento]) -> None:
    found = diff_bentos(*pair)
    assert kinds(found.files) == {
        "bentofile.yaml": "changed", "lib/more.py": "changed", "main.py": "added",
        "picture.bin": "added", "service.py": "removed",
    }  # fmt: skip
    assert found.packages == (Change("tiny", "2.0", "1.0"),)
    assert found.config == (Change("labels.team", None, "a"), Change("service", "service:Iris", "main:Iris"))
    assert kinds(found.api) == {"POST /a": "changed", "POST /gone": "removed", "POST /new": "added"}
    changed = found.api[0]
    assert (changed.old, changed.new) == ("(x: number) -> number", "(x: number, y: number) -> number")
    assert changed.parts == ("input",)


def test_a_bento_does_not_differ_from_itself(pair: tuple[BentoStore, StoredBento, StoredBento]) -> None:
    store, first, second = pair
    assert not diff_bentos(store, first, first)
    assert diff_bentos(store, first, second)


def test_text_files_get_a_patch_and_others_do_not(pair: tuple[BentoStore, StoredBento, StoredBento]) -> None:
    store, first, second = pair
    changes = diff_bentos(store, first, second).files
    patches = {patch.name: patch.lines for patch in patch_files(store, first, second, changes)}
    assert set(patches) == {"bentofile.yaml", "lib/more.py", "main.py", "service.py"}
    assert {"-X = 1", "+X = 2"} < set(patches["lib/more.py"])
    assert all(line.startswith(("-", "@@", "+++")) for line in patches["service.py"])


def test_one_version_with_other_files_is_a_difference(project: Path, builder: Builder) -> None:
    first = builder(project)
    lock = project / "bento.lock"
    text = re.sub(r"# content: .*\n", "", lock.read_text())  # without it no lock is known to be another's work
    lock.write_text(text.replace("--hash=sha256:" + _hash(lock), "--hash=sha256:" + "0" * 64, 1))
    second = builder(project)
    store = BentoStore(builder.layout)
    (change,) = diff_bentos(store, store.get(first.tag), store.get(second.tag)).packages
    assert change.kind == "changed"
    assert "files" in str(change.old)


def _hash(lock: Path) -> str:
    return lock.read_text().partition("--hash=sha256:")[2][:64]
