"""``bentotool containerize`` with the ``oci`` builder: what is in the image, and what it will not do."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import StoredBento
from bentotool.build.media import CODE
from bentotool.models.store import ModelStore
from bentotool.oci.attached import Attachment, attach, indexes, referrers
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.descriptor import Index, Manifest
from bentotool.oci.layout import Layout

pytestmark = pytest.mark.timeout(120)
Cli = Callable[..., Any]


@pytest.fixture
def make(cli: Cli, bento: StoredBento, base: str, wheels: Path) -> Cli:
    """``make("--option", …)`` containerizes the Bento offline."""

    def run(*arguments: str, status: int = 0) -> Any:
        if "--base" not in arguments:
            arguments = ("--base", base, *arguments)
        return cli("containerize", bento.tag, "--offline", "--find-links", str(wheels), *arguments, status=status)

    return run


def image_of(layout: Layout, document: Any, number: int = 0) -> tuple[Manifest, dict[str, Any]]:
    manifest = Manifest.from_bytes(layout.read(document["images"][number]["digest"]))
    return manifest, json.loads(layout.read(manifest.config.digest))


def files_of(layout: Layout, digest: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(layout.blob_path(digest)) as archive:
        return {member.name: member for member in archive}


def test_the_layers_of_an_image(make: Cli, layout: Layout, bento: StoredBento) -> None:
    done = make("--no-compress")
    manifest, config = image_of(layout, done)
    kinds = [layer["kind"] for layer in done["images"][0]["layers"]]
    assert kinds == ["base", "python", "runtime", *["model"] * (len(kinds) - 4), "code"]
    model = ModelStore(layout).get("iris:1")
    assert [layer.digest for layer in manifest.layers[3:-1]] == [layer.digest for layer in model.manifest.layers]
    assert manifest.layers[-1].digest == bento.layer(CODE).digest
    assert [layer.media_type.rpartition(".")[2] for layer in manifest.layers[:2]] == ["tar+gzip", "tar"]
    assert config["rootfs"]["diff_ids"][1:] == [layer.digest for layer in manifest.layers[1:]]
    assert sum(not each.get("empty_layer") for each in config["history"]) == len(manifest.layers)
    packages, runtime = (files_of(layout, layer.digest) for layer in manifest.layers[1:3])
    site = "opt/bentotool/env/lib/python3.12/site-packages"
    assert {f"{site}/demo/__init__.py", "opt/bentotool/env/bin/demo"} <= set(packages)
    assert f"{site}/bentotool/runtime/__main__.py" in runtime
    assert runtime["opt/bentotool/env/bin/python"].linkname == "/usr/local/bin/python3.12"


def test_the_config_of_an_image(make: Cli, layout: Layout, bento: StoredBento) -> None:
    manifest, document = image_of(layout, make())
    config = document["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/bentotool/env/bin/python", "-m", "bentotool.runtime", "/home/bento"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "/opt/bentotool/env/bin/python"]
    assert (config["StopSignal"], config["ExposedPorts"]) == ("SIGTERM", {"3000/tcp": {}})
    assert not {"Cmd", "Volumes", "OnBuild", "Shell"} & set(config)
    env = dict(item.split("=", 1) for item in config["Env"])
    assert env["PATH"] == "/opt/bentotool/env/bin:/usr/local/bin:/usr/bin"
    assert (env["PORT"], env["LANG"], env["BENTOTOOL_HOST"]) == ("3000", "C.UTF-8", "0.0.0.0")
    assert document["created"] == "1970-01-01T00:00:00Z"
    labels = config["Labels"]
    assert (labels["vendor"], labels["team"], labels["org.opencontainers.image.title"]) == ("us", "flowers", "double")
    assert labels["io.bentotool.bento.digest"] == bento.digest
    assert manifest.annotations["org.opencontainers.image.base.digest"].startswith("sha256:")
    assert "org.opencontainers.image.base.name" not in manifest.annotations  # a folder of this machine


def test_an_image_built_twice_is_one(
    make: Cli, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    first = make()
    collected = first["images"][0]["layers"][1]["digest"]
    layout.blob_path(collected).unlink()
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "other-cache"))
    (tmp_path / "moved").symlink_to(base[4:], target_is_directory=True)
    second = make("--base", f"oci:{tmp_path / 'moved'}")
    assert (second["digest"], second["images"][0]["layers"][1]["cached"]) == (first["digest"], False)
    assert make()["images"][0]["layers"][1]["cached"] is True
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = make()
    assert dated["digest"] != first["digest"]
    assert image_of(layout, dated)[1]["created"] == "2023-11-14T22:13:20Z"


def test_several_platforms_in_one_command(make: Cli, layout: Layout, bento: StoredBento) -> None:
    done = make("--platform", "linux/amd64,linux/arm64")
    assert [image["platform"] for image in done["images"]] == ["linux/amd64", "linux/arm64"]
    assert [image_of(layout, done, number)[1]["architecture"] for number in (0, 1)] == ["amd64", "arm64"]
    (kept,) = indexes(layout, bento.digest)
    entries = Index.from_bytes(layout.read(kept.digest)).manifests
    assert [each.annotations["io.bentotool.kind"] for each in entries] == ["image", "image", "bento", "model"]


def test_the_last_images_are_the_bentos(make: Cli, layout: Layout, bento: StoredBento) -> None:
    make("--platform", "linux/amd64,linux/arm64")
    done = make()
    (kept,) = indexes(layout, bento.digest)
    assert Index.from_bytes(layout.read(kept.digest)).manifests[0].digest == done["digest"]
    collect(layout, grace=0)
    assert verify_store(layout).faults == ()
    assert layout.has(done["images"][0]["layers"][1]["digest"])


def test_what_is_attached_to_an_image(make: Cli, layout: Layout) -> None:
    done = make()
    found = referrers(layout, done["digest"], "application/vnd.in-toto+json")
    assert len(found) == 1
    statement = json.loads(layout.read(found[0].manifest.layers[0].digest))
    assert statement["subject"][0]["digest"]["sha256"] == done["digest"][7:]
    names = {each["name"] for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert {"base", "bento.lock", "iris:1"} <= names
    make()
    assert len(referrers(layout, done["digest"], "application/vnd.in-toto+json")) == 1


def test_labels_that_the_provenance_gives(make: Cli, layout: Layout, bento: StoredBento) -> None:
    assert "org.opencontainers.image.source" not in make("--dry-run")["plans"][0]["labels"]
    commit, kind = "a" * 40, "application/vnd.in-toto+json"
    source = {"name": "source", "uri": f"git+https://example.com/x.git@{commit}", "digest": {"gitCommit": commit}}
    statement = {
        "subject": [{"name": "double", "digest": {"sha256": bento.digest[7:]}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {"resolvedDependencies": [{"name": "bento.lock"}, source]}},
    }
    attach(layout, bento.digest, kind, [Attachment(json.dumps(statement).encode(), kind)])
    labels = image_of(layout, make())[1]["config"]["Labels"]
    assert labels["org.opencontainers.image.source"] == "https://example.com/x.git"
    assert labels["org.opencontainers.image.revision"] == commit


def test_a_wheel_for_another_platform(make: Cli, wheels: Path, layout: Layout, bento: StoredBento) -> None:
    (wheels / "demo-1-py3-none-any.whl").rename(wheels / "demo-1-cp312-cp312-manylinux_2_17_x86_64.whl")
    assert make()["images"][0]["platform"] == "linux/amd64"
    error = make("--platform", "linux/amd64,linux/arm64", status=1)
    assert error["message"].startswith(f"the packages of {bento.tag} cannot be installed for linux/arm64: ")
    (kept,) = indexes(layout, bento.digest)  # of the first: a half of two platforms is none
    assert len(Index.from_bytes(layout.read(kept.digest)).manifests) == 3


def test_the_network_is_not_needed(
    bento: StoredBento, base: str, wheels: Path, tmp_path: Path, require_tool: Cli
) -> None:
    command = [require_tool("unshare"), "--net", "--map-root-user"]
    if subprocess.run([*command, "true"], capture_output=True, timeout=20).returncode:
        require_tool("unshare that may make a network namespace")
    command += [sys.executable, "-m", "bentotool", "containerize", bento.tag, "--offline", "--base", base]
    command += ["--find-links", str(wheels), "--output", str(tmp_path / "image.tar"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "image.tar").stat().st_size > 10_000


def test_compressed_packages(make: Cli, layout: Layout) -> None:
    plain, small = make("--no-compress"), make()
    manifest, config = image_of(layout, small)
    assert manifest.layers[1].media_type.endswith("+gzip")
    assert manifest.layers[1].size < plain["images"][0]["layers"][1]["size"]
    assert config["rootfs"] == image_of(layout, plain)[1]["rootfs"]


def test_the_plan_alone(make: Cli, layout: Layout, bento: StoredBento) -> None:
    plan = make("--dry-run")["plans"][0]
    assert (plan["base_from"], plan["platform"], plan["demands"]) == ("option", "linux/amd64", [])
    assert [layer["kind"] for layer in plan["layers"]][:2] == ["python", "runtime"]
    assert not indexes(layout, bento.digest)


@pytest.mark.parametrize(
    ("config", "base"),
    [
        ("docker: {distro: alpine}\n", "docker.io/library/python:3.12-alpine"),
        ("docker: {cuda_version: '12.8'}\n", "docker.io/nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04"),
    ],
)
def test_the_plan_names_the_base_that_is_taken(
    cli: Cli, build: Callable[..., StoredBento], require_package: Cli, config: str, base: str
) -> None:
    require_package("bentotool_docker")
    tag = build(config).tag
    assert cli("containerize", tag, "--dry-run")["plans"][0]["base"] == base
    refused = cli("containerize", tag, "--dry-run", "--builder", "oci", status=1)
    assert "the oci builder knows no base image" in refused["message"]


def test_a_disk_without_room(
    bento: StoredBento, base: str, wheels: Path, tmp_path: Path, require_tool: Cli, layout: Layout
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=64k none '{small}' && exec \"$@\""
    isolated = [require_tool("unshare"), "--mount", "--map-root-user", "sh", "-c"]
    if subprocess.run([*isolated, mount, "sh", "true"], capture_output=True, timeout=20).returncode:
        require_tool("unshare that may mount")
    command = [sys.executable, "-m", "bentotool", "containerize", bento.tag, "--offline", "--base", base, "--json"]
    command += ["--find-links", str(wheels), "--output"]
    for output in (f"{small}/image.tar", f"oci:{small}/layout"):
        after = f"; status=$?; test -z \"$(find '{small}' -size +40k)\" && exit $status"
        done = subprocess.run(
            [*isolated, mount.replace("exec ", "") + after, "sh", *command, output],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        error = json.loads([line for line in done.stderr.splitlines() if '"error"' in line][-1])["error"]
        assert done.returncode == 1
        assert error["message"].startswith("no space left on the disk that holds")
        assert "--output" in error["hint"]
    # packages are put together in the store: nothing of theirs lies where temporary files do
    elsewhere = ["env", f"TMPDIR={small}", *command, f"{tmp_path}/image.tar"]
    tiny = mount.replace("64k", "4k")
    done = subprocess.run([*isolated, tiny, "sh", *elsewhere], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not list((layout.root / "tmp").iterdir())


def test_the_base_that_is_named_first_counts(
    cli: Cli, build: Callable[..., StoredBento], monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*arguments: str) -> tuple[str, str]:
        plan = cli("containerize", tag, "--dry-run", *arguments)["plans"][0]
        return plan["base"], plan["base_from"]

    tag = build().tag
    assert chosen() == ("docker.io/library/python:3.12-slim", "default")
    monkeypatch.setenv("BENTOTOOL_BASE_IMAGE", "mirror.example/python:{python}")
    assert chosen() == ("mirror.example/python:3.12", "environment")
    tag = build("docker: {base_image: 'registry.example/base:2'}\n").tag
    assert chosen() == ("registry.example/base:2", "bento")
    assert chosen("--base", "other.example/x:1") == ("other.example/x:1", "option")


@pytest.mark.parametrize(
    ("config", "extra", "words"),
    [
        ("docker: {system_packages: [git]}\n", "", "system package git"),
        ("docker: {commands: ['echo hi']}\n", "", "command 'echo hi'"),
        ("", "# source: demo\n", "demo, which has no wheel"),
        ("docker: {distro: alpine}\n", "", "distribution alpine"),
        ("docker: {cuda_version: '12.1'}\n", "", "CUDA 12.1"),
    ],
)
def test_what_needs_another_builder(
    cli: Cli, build: Callable[..., StoredBento], layout: Layout, config: str, extra: str, words: str
) -> None:
    bento = build(config, extra=extra)
    error = cli("containerize", bento.tag, "--builder", "oci", status=1)
    assert words in error["message"]
    assert "buildkit" in error["hint"]
    # a base that has the package is no help as long as the Bento asks for it
    assert ("take it out of bentofile.yaml" in error["hint"]) == (words == "system package git")
    assert ("python.wheels" in error["hint"]) == ("no wheel" in words)
    assert not indexes(layout, bento.digest)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--platform", "windows/amd64"], 2, "no image can be built"),
        (["--push"], 2, "-t HOST"),
        (["-t", "Not A Name"], 2, "not a"),
        (["-t", "x.example/a@sha256:" + "0" * 64], 2, "digest"),
        (["--builder", "nothing"], 2, "there are"),
        (["--output", "image.zip"], 2, "of neither form, FILE.tar or oci:FOLDER"),
        (["--output", "image"], 2, "--output image.tar for docker load, --output oci:image for an OCI layout"),
        (["--output", "o.tar.gz"], 2, "; to compress it afterwards: gzip o.tar"),
        (["--output", "no/such/folder/x.tar"], 2, "there is no folder no/such/folder"),
        (["--base", "./nofile.tar"], 3, "no file or folder './nofile.tar'"),
        (["--base", "nofile.tar"], 3, "no file or folder 'nofile.tar'"),
        (["--base", "no/file.tar"], 3, "no file or folder 'no/file.tar'"),
        (["--base", "mirror.example/no/file.tar"], 3, "not in the store"),
        (["--base", "oci:/no/such/folder"], 3, "no folder"),
        (["--base", "oci-archive:/no/such/file"], 3, "no file"),
        (["--base", "mirror.example/python:1"], 3, "not in the store"),
        (["--base", "a b"], 2, "is not a"),
        (["--find-links", "/no/such/folder"], 3, "no folder"),
    ],
)
def test_mistakes_are_one_line(make: Cli, arguments: list[str], status: int, words: str) -> None:
    error = make(*arguments, status=status)
    assert words in f"{error['message']} {error['hint']}"
    assert "\n" not in error["message"]


def test_a_wheel_that_is_nowhere(cli: Cli, bento: StoredBento, base: str, wheels: Path) -> None:
    (wheels / "demo-1-py3-none-any.whl").unlink()
    arguments = ("containerize", bento.tag, "--base", base, "--offline", "--find-links", str(wheels))
    error = cli(*arguments, status=1)
    assert error["message"].startswith(f"the packages of {bento.tag} cannot be installed for linux/amd64")
    assert "--find-links" in error["hint"]


def test_a_wheel_that_is_another(cli: Cli, bento: StoredBento, base: str, wheels: Path) -> None:
    wheel = wheels / "demo-1-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    error = cli("containerize", bento.tag, "--base", base, "--offline", "--find-links", str(wheels), status=1)
    assert "ash" in error["message"]  # of the hash; uv's words
