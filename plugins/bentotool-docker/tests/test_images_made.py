"""Which image a deployment runs, and whose it is: made anew for a base, cleared away whatever came of the attempt."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

QUICK = ("--drain", "0", "--grace", "5", "--port", "0")


@pytest.fixture
def version(project: Any, name: str) -> Any:
    """Makes the project's Bento one of the test's own."""
    service = project.folder / "service.py"
    before = service.read_text()
    service.write_text(f"{before}\n# images of {name}\n")
    yield
    service.write_text(before)


def images(engine: Any, digest: str) -> list[str]:
    return [str(each.id) for each in engine.images.list(filters={"label": f"io.bentotool.bento.digest={digest}"})]


def built(project: Any) -> str:
    """Digest of the Bento that the project is now."""
    return str(json.loads(project.run("--json", "build", ".").out)["digest"])


@pytest.mark.parametrize("cleared", ["prune", "delete"])
def test_the_image_of_a_deployment_that_failed_goes(
    project: Any, engine: Any, name: str, version: None, cleared: str
) -> None:
    failed = project.deploy(name, *QUICK, "--env", "BROKEN=1", ok=False)
    assert failed.status != 0
    digest = built(project)
    assert len(images(engine, digest)) == 1
    removed = project.run("--json", "deployment", cleared, name)
    assert removed.status == 0, removed.err
    assert len([each for each in removed.document["removed"] if each.startswith("image ")]) == 1
    assert images(engine, digest) == []


def test_the_image_of_a_deployment_that_was_killed_goes_with_the_next(
    project: Any, engine: Any, name: str, version: None
) -> None:
    process = subprocess.Popen(
        project.command("deploy", "docker", ".", "--name", name, *QUICK, "--base", f"oci-archive:{project.base}",
                        "--env", "STARTS_IN=20"),
        cwd=project.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    next(line for line in process.stderr if "starts" in line)
    process.kill()
    process.communicate(timeout=60)
    done = project.deploy(name, *QUICK)
    assert "load it into the engine" not in done.err
    assert done.document["facts"]["image_made"] is True
    other = project.deploy(f"{name}-b", *QUICK).document
    try:
        assert other["facts"]["image_made"] is True  # as it was made by a deployment, of whatever name
        kept = project.run("--json", "deployment", "delete", name).document["removed"]
        assert not [each for each in kept if each.startswith("image ")]
    finally:
        removed = project.run("--json", "deployment", "delete", f"{name}-b").document["removed"]
    assert len([each for each in removed if each.startswith("image ")]) == 1
    assert images(engine, other["digest"]) == []


def test_a_base_that_is_named_counts_though_there_is_an_image(
    project: Any, engine: Any, name: str, version: None, tools: SimpleNamespace
) -> None:
    first = project.deploy(name, *QUICK).document
    nowhere = project.run("--json", "deploy", "docker", ".", "--name", name, *QUICK, "--base", "oci:no-such-folder")
    assert nowhere.status == 3
    assert "no folder 'no-such-folder'" in nowhere.err
    nobody = project.run("deploy", "docker", ".", "--name", name, *QUICK, "--builder", "nobody")
    assert nobody.error.startswith("error: no image builder 'nobody'")
    both = project.run("deploy", "docker", ".", "--name", name, *QUICK, "--base", "oci:b", "--image", "some:1")
    assert both.error == "error: --image some:1 runs as it is: --base and --builder say how the Bento's own is made"
    base = engine.images.get("python:3.11-slim")
    marked = engine.containers.create(base.id, "true")
    try:
        other = marked.commit(
            repository=f"localhost/{name}", tag="1", conf={"Env": [*base.attrs["Config"]["Env"], "OF=2"]}
        )
    finally:
        marked.remove()
    path = project.folder.parent / f"{name}.tar"
    try:
        with path.open("wb") as file:
            for piece in other.save(named=True):
                file.write(piece)
    finally:
        engine.images.remove(f"localhost/{name}:1")
    words = ("deploy", "docker", ".", "--name", name, *QUICK)
    second = project.run("--json", *words, "--base", f"oci-archive:{path}")
    path.unlink()
    assert second.status == 0, second.err
    facts = second.document["facts"]
    assert (facts["image_id"] != first["facts"]["image_id"], facts["image_made"]) == (True, True)
    assert "OF=2" in engine.images.get(facts["image_id"]).attrs["Config"]["Env"]
    same = project.run("--json", *words)  # without a word on the base, the image that is there
    assert same.document["facts"]["image_id"] == facts["image_id"]
    again = project.deploy(name, *QUICK)  # the first is there, without a tag
    assert "load it into the engine" not in again.err
    assert (again.document["facts"]["image_id"], again.document["facts"]["image_made"]) == (
        first["facts"]["image_id"], True,
    )  # fmt: skip
    assert "OF=2" not in tools.call(again.document["url"], "facts")["environment"]
    assert project.run("deployment", "delete", name).status == 0
    assert images(engine, first["digest"]) == []
