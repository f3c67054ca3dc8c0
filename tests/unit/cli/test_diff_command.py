"""``bentotool diff`` as a person and as a script reads it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore
from bentotool.build.media import API, ARTIFACT_TYPE, CODE, CONFIG, LOCK, WHEEL
from bentotool.cli.main import main
from bentotool.oci.descriptor import MANIFEST, Manifest, canonical_json
from bentotool.oci.layout import Layout
from bentotool.oci.tar import TarEntry, VirtualTar


def add_bento(layout: Layout, version: str, code: bytes, lock: str) -> str:
    tar = VirtualTar([TarEntry("home/bento/app/service.py", len(code))], lambda _: io.BytesIO(code))
    config = {
        "schema": 1, "name": "svc", "version": version, "service": "service:S", "python": "3.12",
        "platform": "linux/amd64", "description": "", "labels": {}, "models": [],
    }  # fmt: skip
    layers = (
        layout.put(tar.read(), CODE),
        layout.put(lock.encode(), LOCK),
        layout.put(b"wheel", WHEEL),
        layout.put(canonical_json({"openapi": {}, "schema": {}}), API),
    )
    manifest = Manifest(layout.put(canonical_json(config), CONFIG), layers, artifact_type=ARTIFACT_TYPE)
    stored = layout.put(manifest.to_bytes(), MANIFEST)
    return BentoStore(layout).adopt("svc", version, stored.digest).digest


@pytest.fixture
def bentos(store: Path) -> None:
    layout = Layout(store)
    add_bento(layout, "1", b"X = 1\n", "tiny==1.0\n")
    add_bento(layout, "2", b"X = 2\n", "tiny==2.0\n")


@pytest.mark.usefixtures("bentos")
def test_a_person_reads_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "svc:1", "svc:2", "--patch"]) == 0
    out = capsys.readouterr().out
    assert "packages:\n  ~ tiny  1.0 → 2.0\n" in out
    assert "-X = 1\n+X = 2\n" in out


@pytest.mark.usefixtures("bentos")
def test_a_script_reads_json_and_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "svc:1", "svc:2", "--json", "--exit-code"]) == 1
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (document["old"]["tag"], document["new"]["tag"], document["same"]) == ("svc:1", "svc:2", False)
    expected = {"change": "changed", "name": "tiny", "old": "1.0", "new": "2.0", "parts": []}
    assert document["packages"] == [expected]
    assert main(["diff", "svc:1", "svc:1", "--exit-code"]) == 0
    assert main(["diff", "svc:1", "svc:9"]) == 3
