"""Deploying to a target whose machines pull from a registry: what is pushed there, and by which name it is deployed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import StoredBento
from bentotool.oci.attached import indexes
from bentotool.oci.layout import Layout

pytestmark = pytest.mark.timeout(300)
SHELF = """
import json
from bentotool.hookspecs import hookimpl
from bentotool.targetoptions import IMAGE_OPTIONS, planned_image, published_image
from bentotool.targetspec import *

@hookimpl
def bentotool_targets():
    lean = OptionSpec("lean", "flag", "Without models", default=False)
    return [TargetDecl("shelf", __name__ + ":Shelf", "A shelf", options=(*IMAGE_OPTIONS, lean))]

class Shelf:
    def plan(self, bento, options):
        image, note = planned_image(bento, options.values, lean=options.values["lean"])
        spec = {"image": image.reference, "services": [each.name for each in bento.services]}
        spec["volumes"] = [image.volume(each.digest) for each in bento.models]
        book = PlannedResource("book", options.name, "create", spec)
        return Plan("shelf", bento, options, (book,), "", (note,) * bool(note))
    def apply(self, plan, wait):
        image = published_image(plan.bento, plan.options.values, lean=plan.options.values["lean"])
        volumes = [image.volume(each.digest) for each in plan.bento.models]
        facts = {"image": image.reference, "images": dict(image.images), "volumes": volumes}
        return Deployment(plan.name, "shelf", "ready", "", plan.bento.tag, plan.bento.digest, facts=facts)
    def forms(self):
        return {"list": "A list", "page": "A page"}
    def write(self, plan, form, publish):
        asked = plan.bento, plan.options.values
        image = published_image(*asked) if publish else planned_image(*asked)[0]
        return {"list.txt": image.reference} if form == "list" else {"pages/1.txt": "one", "pages/2.txt": "two"}
    def status(self, deployment):
        return deployment
    def logs(self, deployment, follow, tail):
        return iter(())
    def delete(self, deployment):
        return []
    def list(self):
        return []
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Path, base: str) -> Iterator[None]:
    """The target, and where images made for it start from."""
    site = tmp_path / "site"
    info = site / "shelf-1.dist-info"
    info.mkdir(parents=True)
    (site / "shelf_plugin.py").write_text(SHELF)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bentotool]\nshelf = shelf_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("BENTOTOOL_BASE_IMAGE", base)
    yield
    sys.modules.pop("shelf_plugin", None)


def layers(reference: str, skopeo: str) -> list[str]:
    command = [skopeo, "inspect", "--tls-verify=false", "--override-arch", "amd64", f"docker://{reference}"]
    return list(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["Layers"])


@pytest.mark.usefixtures("shelf")
def test_the_image_is_made_pushed_and_deployed_by_digest(
    cli: Callable[..., Any], bento: StoredBento, real_registry: Any, layout: Layout, require_tool: Callable[[str], str]
) -> None:
    where = f"{real_registry.host}/flowers"
    planned = cli("deploy", "shelf", bento.tag, "--registry", where, "--dry-run")
    assert planned["resources"][0]["spec"]["image"] == f"{where}/double:{bento.version}"
    assert planned["resources"][0]["spec"]["services"] == ["Double"]
    assert "still to be made" in planned["notes"][0]
    done = cli("deploy", "shelf", bento.tag, "--registry", where)
    (kept,) = indexes(layout, bento.digest)
    assert done["facts"]["image"] == f"{where}/double@{kept.digest}"
    assert list(done["facts"]["images"]) == ["linux/amd64"]
    model = bento.models[0]
    found = layers(done["facts"]["image"], require_tool("skopeo"))
    weights = layout.read(model.digest)
    assert {layer["digest"] for layer in json.loads(weights)["layers"]} <= set(found)
    again = cli("deploy", "shelf", bento.tag, "--registry", where, "--dry-run")
    assert again["resources"][0]["spec"]["image"] == done["facts"]["image"], "it is known now, without a push"


@pytest.mark.usefixtures("shelf")
def test_models_go_as_volumes_beside_an_image_without_them(
    cli: Callable[..., Any], bento: StoredBento, real_registry: Any, layout: Layout, require_tool: Callable[[str], str]
) -> None:
    where = f"{real_registry.host}/lean"
    planned = cli("deploy", "shelf", bento.tag, "--registry", where, "--lean", "--dry-run")
    done = cli("deploy", "shelf", bento.tag, "--registry", where, "--lean")
    (volume,) = done["facts"]["volumes"]
    assert planned["resources"][0]["spec"]["volumes"] == [volume]
    weights = {layer["digest"] for layer in json.loads(layout.read(bento.models[0].digest))["layers"]}
    skopeo = require_tool("skopeo")
    assert set(layers(volume, skopeo)) == weights
    assert not weights & set(layers(done["facts"]["image"], skopeo))
    listing = [skopeo, "list-tags", "--tls-verify=false", f"docker://{where}/double"]
    tags = json.loads(subprocess.run(listing, capture_output=True, check=True, timeout=60).stdout)["Tags"]
    assert sorted(tags) == sorted([bento.version, f"iris-{bento.models[0].digest[7:19]}-volume"])
    # whoever pushes the Bento now pushes the whole image
    (kept,) = indexes(layout, bento.digest)
    pushed = cli("push", bento.tag, f"{real_registry.host}/whole:1")
    assert pushed["index"] == kept.digest
    assert weights <= set(layers(f"{real_registry.host}/whole:1", skopeo))


@pytest.mark.usefixtures("shelf")
def test_a_rollback_deploys_the_image_of_its_revision(
    cli: Callable[..., Any], build: Callable[..., StoredBento], real_registry: Any, base: str
) -> None:
    first = build()
    one = cli("deploy", "shelf", first.tag, "--registry", f"{real_registry.host}/back", "--name", "back")
    second = build(config="description: another\n")
    two = cli("deploy", "shelf", second.tag, "--registry", f"{real_registry.host}/back", "--name", "back")
    assert one["facts"]["image"] != two["facts"]["image"]
    cli("delete", first.tag, "--yes")
    back = cli("deployment", "rollback", "back")
    assert back["facts"]["image"] == one["facts"]["image"]
    assert (back["tag"], back["revision"]) == (first.tag, 3)
    again = cli("deployment", "rollback", "back", "--to", "2", "--base", base)
    assert again["facts"]["image"].startswith(f"{real_registry.host}/back/double@"), (
        "made anew, and pushed where it was"
    )
    assert again["tag"] == second.tag


@pytest.mark.usefixtures("shelf")
def test_what_cannot_be_pushed_is_said_in_a_line(cli: Callable[..., Any], bento: StoredBento, base: str) -> None:
    nowhere = cli("deploy", "shelf", bento.tag, status=2)
    assert nowhere["message"] == "no registry to push the image to"
    assert "--registry" in nowhere["hint"]
    odd = cli("deploy", "shelf", bento.tag, "--registry", "ghcr.io/me@sha256:0", status=2)
    assert "no place in a registry" in odd["message"]
    upper = cli("deploy", "shelf", bento.tag, "--registry", "ghcr.io/Me", "--dry-run", status=2)
    assert "repository" in upper["message"]
    image = cli("deploy", "shelf", bento.tag, "--image", "two words", status=2)
    assert image["message"] == "'two words' is no image"
    both = cli("deploy", "shelf", bento.tag, "--image", "iris:1", "--base", base, status=2)
    assert "runs as it is" in both["message"]
    given = cli("deploy", "shelf", bento.tag, "--image", "iris:1")
    assert given["facts"]["image"] == "iris:1"
    there = ("--registry", "ghcr.io/me", "--dry-run")
    platform = cli("deploy", "shelf", bento.tag, *there, "--platform", "plan9/vax", status=2)
    assert "plan9/vax" in platform["message"]


@pytest.mark.usefixtures("shelf")
def test_files_are_written_in_place_of_deploying(
    cli: Callable[..., Any], bento: StoredBento, real_registry: Any, tmp_path: Path
) -> None:
    folder, where = tmp_path / "made", f"{real_registry.host}/files"
    dry = cli("deploy", "shelf", bento.tag, "--registry", where, "--output", str(folder), "--dry-run")
    assert (dry["status"], dry["form"], dry["files"]) == ("written", "list", ["list.txt"])
    assert (folder / "list.txt").read_text() == f"{where}/double:{bento.version}"
    cli("deploy", "shelf", bento.tag, "--registry", where, "--output", f"list:{folder}")
    assert (folder / "list.txt").read_text().startswith(f"{where}/double@sha256:")
    cli("deploy", "shelf", bento.tag, "--registry", where, "--output", f"page:{folder}", "--dry-run")
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert there == [".bentotool-files.json", "pages/1.txt", "pages/2.txt"]
    cli("deploy", "shelf", bento.tag, "--registry", where, "--output", str(folder), "--dry-run")
    assert not (folder / "pages").exists()
    assert cli("deployment", "list") == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    refused = cli("deploy", "shelf", bento.tag, "--output", str(tmp_path / "mine"), status=1)
    assert "has files in it" in refused["message"]
    (folder / ".bentotool-files.json").write_text('["../../etc/passwd"]')
    damaged = cli("deploy", "shelf", bento.tag, "--registry", where, "--output", str(folder), "--dry-run", status=1)
    assert "is damaged" in damaged["message"]
