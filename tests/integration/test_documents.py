"""What a build attaches, as a person meets it: made once, printed, pushed and pulled, and without secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore
from bentotool.cli.main import main
from bentotool.errors import BuildError
from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.attached import Attachment, attach, referrers
from bentotool.oci.layout import Layout
from bentotool.trust import attached
from bentotool.trust.attached import FORMATS, PROVENANCE
from bentotool.trust.contents import read_packages

SERVICE = """
import bentotool

@bentotool.service
class Double:
    model = bentotool.models.BentoModel("iris:1")

    @bentotool.api
    def predict(self, x: float) -> float:
        return 2 * x
"""
LITESTAR = f"litestar==2.25.0 \\\n    --hash=sha256:{'1' * 64} \\\n    --hash=sha256:{'2' * 64}\n"
SECRET = "s3cret-token"


@pytest.fixture(autouse=True)
def _surroundings(require_package: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("litestar", "cyclonedx", "spdx_tools"):
        require_package(package)
    for name in ("SOURCE_DATE_EPOCH", "GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def layout(store: Path) -> Layout:
    return Layout(store)


@pytest.fixture
def model(layout: Layout) -> StoredModel:
    """A model of no framework, so that no plugin is needed."""
    files = [
        ModelFile(name, len(data), layout.put(data, "application/octet-stream").digest)
        for name, data in (("w.bin", b"weights"), ("sub/config.json", b"{}"))
    ]
    details = ModelDetails("", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {"team": "a"}, {})
    return ModelStore(layout).add("iris", "1", files, details)


@pytest.fixture
def project(tmp_path: Path, model: StoredModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model and a lock, so that no index is asked."""
    from bentotool.build.configfile import load_config
    from bentotool.build.lock import inputs_digest
    from bentotool.build.requirements import gather

    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE)
    (folder / "bentofile.yaml").write_text("service: service:Double\nlabels: {team: search}\n")
    inputs = inputs_digest(gather(load_config(folder)), "3.12", "linux/amd64")
    header = "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    header += f"# inputs: {inputs}\n# python: 3.12\n# platform: linux/amd64\n"
    (folder / "bento.lock").write_text(header + LITESTAR)
    time.sleep(0.1)  # what was written in the moment of a build is not believed to be what that build read
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run("build", folder)`` runs a command line: exit status, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def printed(run: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """The document that a command line prints with ``--json``."""

    def call(*arguments: object) -> Any:
        status, out, err = run(*arguments, "--json")
        assert status == 0, err
        return json.loads(out)

    return call


def kinds(layout: Layout, digest: str) -> list[str]:
    return sorted(each.descriptor.artifact_type or "" for each in referrers(layout, digest))


EVERY = sorted([*FORMATS.values(), PROVENANCE])


def test_a_build_attaches_each_document_once(
    project: Path, layout: Layout, model: StoredModel, printed: Callable[..., Any], tmp_path: Path
) -> None:
    built = printed("build", project)
    assert sorted(each["artifact_type"] for each in built["attached"]) == EVERY
    assert kinds(layout, built["digest"]) == EVERY
    assert "attached" not in printed("build", project)
    again = printed("build", project, "--no-cache")
    assert (again["digest"], again["attached"]) == (built["digest"], [])
    assert sorted(each["artifact_type"] for each in printed("show", "double")["referrers"]) == EVERY

    bill = printed("sbom", "double")
    assert (bill["digest"], bill["format"], bill["media_type"]) == (built["digest"], "cyclonedx", FORMATS["cyclonedx"])
    assert bill["referrer"] in {each["digest"] for each in built["attached"]}
    other = printed("sbom", "double", "--format", "spdx")
    for package in read_packages((project / "bento.lock").read_text()):
        (part,) = [each for each in bill["document"]["components"] if each["name"] == package.name]
        (same,) = [each for each in other["document"]["packages"] if each["name"] == package.name]
        assert [each["content"] for each in part["hashes"]] == list(package.hashes)
        assert [each["checksumValue"] for each in same["checksums"]] == list(package.hashes)
    (part,) = [each for each in bill["document"]["components"] if each["type"] == "machine-learning-model"]
    assert (part["name"], part["hashes"][0]["content"]) == ("iris", model.digest[7:])
    assert {each["name"] for each in part["components"]} == {file.path for file in model.files}
    assert model.digest[7:] in {each["checksums"][0]["checksumValue"] for each in other["document"]["packages"]}

    statement = printed("provenance", "double")["document"]
    assert statement["subject"] == [{"name": "double", "digest": {"sha256": built["digest"][7:]}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"config": "bentofile.yaml"}
    assert model.digest[7:] in {each.get("digest", {}).get("sha256") for each in definition["resolvedDependencies"]}


SHELF = """
from bentotool.hookspecs import hookimpl
from bentotool.targetspec import Deployment, Plan, PlannedResource, TargetDecl

@hookimpl
def bentotool_targets():
    return [TargetDecl("shelf", __name__ + ":Shelf", "A shelf")]

class Shelf:
    def plan(self, bento, options):
        return Plan("shelf", bento, options, (PlannedResource("box", options.name, "create", {}),), url="")
    def apply(self, plan, wait):
        return Deployment(plan.name, "shelf", "ready", plan.url, plan.bento.tag, plan.bento.digest)
    status = logs = delete = list = apply  # never asked
"""


@pytest.fixture
def _shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A target to deploy to."""
    info = tmp_path / "site" / "shelf-1.dist-info"
    info.mkdir(parents=True)
    (info.parent / "shelf_plugin.py").write_text(SHELF)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bentotool]\nshelf = shelf_plugin\n")
    monkeypatch.syspath_prepend(str(info.parent))
    yield
    sys.modules.pop("shelf_plugin", None)


@pytest.mark.usefixtures("_shelf")
def test_a_folder_that_is_deployed_is_built_as_by_build(
    project: Path, layout: Layout, run: Callable[..., tuple[int, str, str]], printed: Callable[..., Any]
) -> None:
    assert printed("deploy", "shelf", project, "--dry-run")["status"] == "planned"
    assert BentoStore(layout).list() == []
    deployed = printed("deploy", "shelf", project)
    assert kinds(layout, deployed["digest"]) == EVERY
    assert "attached" not in printed("build", project)

    (project / "bentofile.yaml").write_text("service: service:Double\npython: {packages: [no-such-package-of-ours]}\n")
    status, _, err = run("deploy", "shelf", project, "--offline")
    assert (status, "requirements cannot be resolved offline" in err) == (1, True), err


def test_a_build_of_nothing_new_and_one_without_bills_import_no_library(project: Path) -> None:
    code = """
import sys
from bentotool.cli.main import main
status = main(sys.argv[1:])
print(status, *sorted({"cyclonedx", "spdx_tools", "packageurl", "bentotool.trust"} & set(sys.modules)))
"""

    def loaded(*arguments: str) -> str:
        command = [sys.executable, "-c", code, "build", str(project), "--quiet", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout.splitlines()[-1]

    assert loaded("--no-sbom") == "0 bentotool.trust"
    assert loaded("--no-sbom") == "0"
    assert loaded() == "0 bentotool.trust cyclonedx packageurl spdx_tools"
    assert loaded() == "0"
    assert loaded("--name", "other") == "0 bentotool.trust cyclonedx packageurl spdx_tools"


def test_what_is_not_wanted_is_not_attached_and_bills_are_made_afresh(
    project: Path, layout: Layout, printed: Callable[..., Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    built = printed("build", project, "--no-sbom", "--no-provenance")
    assert (built["attached"], kinds(layout, built["digest"])) == ([], [])
    assert printed("sbom", "double")["referrer"] is None
    status, _, err = run("provenance", "double")
    assert status == 3
    assert err.startswith("error: no provenance is attached to double:")
    afresh = tmp_path / "out" / "bill.json"
    assert run("sbom", "double", "--output", afresh)[0] == 0
    late = printed("build", project, "--no-provenance")
    assert len(late["attached"]) == 2
    assert "attached" not in printed("build", project, "--no-provenance")
    assert printed("sbom", "double", "--output", tmp_path / "attached.json")["path"].endswith("attached.json")
    assert (tmp_path / "attached.json").read_bytes() == afresh.read_bytes()


def test_what_an_ended_build_did_not_come_to_is_attached_by_the_next(
    project: Path, layout: Layout, printed: Callable[..., Any], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise BuildError("no space left on the disk")

    with monkeypatch.context() as patched:
        patched.setattr(attached, "attach", full)
        assert run("build", project)[0] == 1
    (built,) = BentoStore(layout).list()
    assert kinds(layout, built.digest) == []
    next_one = printed("build", project)
    assert (next_one["digest"], kinds(layout, built.digest)) == (built.digest, EVERY)
    assert "attached" not in printed("build", project)


def test_of_two_builds_at_once_the_second_leaves_the_provenance_of_the_first(
    project: Path, layout: Layout, printed: Callable[..., Any], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, times = attached._provenance, []

    def overtaken(*arguments: Any) -> bytes:
        times.append(0)
        if len(times) == 1:
            assert run("build", project)[0] == 0
        return make(*arguments)

    monkeypatch.setattr(attached, "_provenance", overtaken)
    built = printed("build", project)
    assert len(times) == 2
    assert PROVENANCE not in {each["artifact_type"] for each in built["attached"]}
    assert kinds(layout, built["digest"]) == EVERY


def test_another_name_here_changes_nothing(project: Path, printed: Callable[..., Any]) -> None:
    printed("build", project, "--no-sbom")
    first = printed("sbom", "double")["document"]
    printed("tag", "double", "prod")
    assert printed("sbom", "double:prod")["document"] == first


def test_a_build_without_the_libraries_says_so_in_a_line(
    project: Path, layout: Layout, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached, "_LIBRARIES", ("cyclonedx_is_not_here",))
    status, out, err = run("build", project)
    assert status == 0
    assert [line for line in err.splitlines() if "SBOM" in line] == [
        "no SBOM was made; for the next: pip install 'bentotool[sbom]'"
    ]
    assert kinds(layout, out.splitlines()[1]) == [PROVENANCE]
    status, _, err = run("sbom", "double")
    assert status == 1
    assert "hint: pip install 'bentotool[sbom]'" in err
    assert "SBOM" not in run("build", project, "--no-cache", "--no-sbom")[2]


def test_what_others_attach_is_read_with_care(
    project: Path, layout: Layout, printed: Callable[..., Any], run: Callable[..., Any]
) -> None:
    digest = printed("build", project, "--no-sbom", "--no-provenance")["digest"]
    kind = FORMATS["cyclonedx"]
    for data in (b"", b"[]", b"{", b'{"bomFormat": "other"}', b"[" * 100_000, b"\xff", b'"x"'):
        attach(layout, digest, kind, [Attachment(data, kind)])
    attach(layout, digest, kind)
    strangers = {"predicateType": "https://slsa.dev/provenance/v1", "subject": [{"digest": {"sha256": "0" * 64}}]}
    for data in (json.dumps(strangers).encode(), b"{}", b'{"subject": {"digest": 1}}'):
        attach(layout, digest, PROVENANCE, [Attachment(data, PROVENANCE)])
    assert printed("sbom", "double")["referrer"] is None
    assert run("provenance", "double")[0] == 3
    theirs = attach(layout, digest, kind, [Attachment(b'{"bomFormat": "CycloneDX", "x": "\xc2\x9b1m"}', kind)])
    assert printed("sbom", "double")["referrer"] == theirs.digest
    assert run("sbom", "double")[1].isascii()
    assert len(printed("build", project, "--no-cache")["attached"]) == 2


def test_wrong_use_is_one_line(run: Callable[..., Any], project: Path, tmp_path: Path) -> None:
    assert run("build", project, "--quiet")[0] == 0
    for arguments, status, words in (
        (("sbom", "absent"), 3, "absent"),
        (("provenance", "absent"), 3, "absent"),
        (("sbom", "double", "--format", "xml"), 2, "one of cyclonedx, spdx"),
        (("sbom", "double", "--output", tmp_path), 2, "cannot be written"),
    ):
        found, out, err = run(*arguments)
        assert (found, out) == (status, "")
        assert words in err
        assert len(err.splitlines()) <= 2


def test_an_odd_time_stops_before_anything_is_built(
    project: Path, layout: Layout, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    status, _, err = run("build", project)
    assert status == 2
    assert "SOURCE_DATE_EPOCH='soon'" in err
    assert BentoStore(layout).list() == []


def test_they_travel(
    project: Path,
    printed: Callable[..., Any],
    run: Callable[..., Any],
    real_registry: Any,
    tmp_path: Path,
) -> None:
    host = real_registry.host
    printed("build", project)
    bills = [printed("sbom", "double", "--format", form) for form in FORMATS]
    statement = printed("provenance", "double")
    target = f"{host}/documents/double:1"
    printed("push", "double", target)
    for form, bill in zip(FORMATS, bills, strict=True):
        there = printed("sbom", target, "--format", form)
        assert (there["digest"], there["document"]) == (bill["digest"], bill["document"])
    assert printed("provenance", target)["document"] == statement["document"]

    other = ("--store", tmp_path / "other")
    printed("pull", target, *other)
    for form, bill in zip(FORMATS, bills, strict=True):
        pulled = printed("sbom", "double", "--format", form, *other)
        assert (pulled["referrer"], pulled["document"]) == (bill["referrer"], bill["document"])
    assert printed("provenance", "double", *other)["document"] == statement["document"]

    built = printed("build", project, "--name", "pushed", "--push", f"{host}/documents/pushed:1")
    assert printed("provenance", f"{host}/documents/pushed:1")["digest"] == built["digest"]

    printed("build", project, "--name", "bare", "--no-sbom", "--no-provenance")
    printed("push", "bare", f"{host}/documents/bare:1")
    status, _, err = run("sbom", f"{host}/documents/bare:1")
    assert status == 3
    assert "no cyclonedx SBOM is attached" in err
    printed("model", "push", "iris:1", f"{host}/documents/iris:1")
    assert run("provenance", f"{host}/documents/iris:1")[0] == 3


def test_nothing_of_this_machine_gets_in(
    project: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_tool: Callable[[str], str]
) -> None:
    """Secrets in the environment, the repository's address and the configuration; paths and user names anywhere."""
    require_tool("git")
    (project / "service.py").write_text(
        "import dataclasses, bentotool\n"
        "@dataclasses.dataclass\nclass Arguments:\n    size: int\n    key: bentotool.Secret\n"
        f"arguments = bentotool.use_arguments(Arguments)\n{SERVICE}"
    )
    (project / "bentofile.yaml").write_text(
        f"service: service:Double\nlabels: {{team: search}}\nenvs: [{{name: TOKEN, value: {SECRET}}}]\n"
    )
    for arguments in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=ada-lovelace", "-c", "user.email=ada-lovelace@h.example", "commit", "-qm", "x"),
        ("remote", "add", "origin", f"https://ada-lovelace:{SECRET}@h.example/org/repo?key={SECRET}"),
    ):
        subprocess.run(["git", *arguments], cwd=project, check=True, timeout=30, capture_output=True)
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "UV_INDEX_X_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("UV_INDEX_URL", f"https://ada-lovelace:{SECRET}@h.example/simple")
    for name in ("USER", "USERNAME", "LOGNAME"):
        monkeypatch.setenv(name, "ada-lovelace")
    command = [sys.executable, "-m", "bentotool", "build", str(project), "--json", "--file", "bentofile.yaml"]
    command += ["--arg", "size=3", "--arg", f"key={SECRET}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = referrers(layout, json.loads(done.stdout)["digest"])
    assert len(made) == 3
    for each in made:
        text = (each.data + layout.read(each.manifest.layers[0].digest)).decode()
        for private in (SECRET, "ada-lovelace", str(tmp_path), tmp_path.name, str(Path.home()), sys.prefix):
            assert private not in text
    statement = layout.read(referrers(layout, made[0].subject, PROVENANCE)[0].manifest.layers[0].digest)
    assert b"git+https://h.example/org/repo@" in statement
    assert b'"args":{"size":3}' in statement
