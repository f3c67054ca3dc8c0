"""``bentotool prune`` and ``bentotool list --filter``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.media import ARTIFACT_TYPE, KIND, brief
from bentotool.cli.main import main
from bentotool.oci.descriptor import MANIFEST, Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore


@pytest.fixture
def refs(store: Path) -> RefStore:
    layout = Layout(store)
    refs = RefStore(layout)
    for number in range(4):
        facts = brief("service:S", "3.12", {"team": "a"} if number % 2 else {})
        manifest = layout.put(b"{} " + str(number).encode(), MANIFEST)
        descriptor = Descriptor(MANIFEST, manifest.digest, manifest.size, facts, ARTIFACT_TYPE)
        refs.set(KIND, "svc", str(number), descriptor, size=1)
    return refs


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return [item["tag"] for item in json.loads(capsys.readouterr().out)]


@pytest.mark.usefixtures("refs")
def test_list_filters_by_label_and_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", "--filter", "label=team=a") == ["svc:3", "svc:1"]
    assert run(capsys, "list", "--filter", "label=team", "--filter", "python=3.12") == ["svc:3", "svc:1"]
    assert run(capsys, "list", "--filter", "service=other:S") == []
    assert main(["list", "--filter", "size=1"]) == 2


def test_prune_deletes_what_it_said(refs: RefStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "prune", "--keep", "1", "--dry-run") == ["svc:2", "svc:1", "svc:0"]
    assert len(refs.list(KIND)) == 4
    assert main(["prune", "--keep", "1"]) == 2  # nobody can be asked
    capsys.readouterr()
    assert run(capsys, "prune", "--keep", "1", "--filter", "label=team", "--yes") == ["svc:1"]
    assert run(capsys, "prune", "svc", "--keep", "1", "--yes") == ["svc:2", "svc:0"]
    assert run(capsys, "prune", "--yes") == []
    assert main(["prune", "nothing", "--yes"]) == 3


def test_many_that_would_go_are_not_all_named(refs: RefStore, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(store)
    for number in range(4, 12):
        made = layout.put(b"{} " + str(number).encode(), MANIFEST)
        facts = brief("service:S", "3.12", {})
        refs.set(KIND, "svc", str(number), Descriptor(MANIFEST, made.digest, made.size, facts, ARTIFACT_TYPE), size=1)
    assert main(["prune", "--keep", "1"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("svc:") == 5
    assert "and 6 more, and nobody can be asked here" in said
