"""Signatures, SBOMs and the like: they go out with a push, are shown, and come back with a pull."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.attached import Attachment, attach, keep_index, referrers, referrers_below
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry
from bentotool.transfer.copy import copy
from bentotool.transfer.formats import BentoConfig, NeededModel, bento_index
from bentotool.transfer.remote import inspect

NOTE, SBOM = "application/vnd.test.note", "application/vnd.cyclonedx+json"


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a")


@pytest.fixture
def bento(here: Layout, make_model: Callable[..., StoredModel], make_bento: Callable[..., Ref]) -> Ref:
    return make_bento(here, [make_model(here)])


@pytest.fixture(params=["api", "tag"])
def host(request: pytest.FixtureRequest) -> str:
    """A registry with the referrers API, and one without."""
    if request.param == "tag":
        return str(request.getfixturevalue("real_registry").host)
    return str(request.getfixturevalue("listing").host)


@pytest.fixture
def listing(faulty: Any, reply: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulator with the referrers API, two to a page; ``claimed[digest]`` stands in place of the truth."""
    get, put, claimed = faulty.on_get, faulty.on_put, dict[str, list[Descriptor]]()

    def on_get(seen: Any) -> Any:
        match = re.search(r"/referrers/(sha256:[0-9a-f]{64})(?:\?from=(\d+))?$", seen.path)
        if "/tags/list" in seen.path:
            return reply(200, json.dumps({"tags": [tag for tag in faulty.manifests if ":" not in tag]}).encode())
        if not match:
            return get(seen)
        start = int(match[2] or 0)
        found = claimed[match[1]] if match[1] in claimed else true_referrers(faulty, match[1])
        headers = {"Content-Type": INDEX}
        if start + faulty.page < len(found):
            headers["Link"] = f'<{seen.path.partition("?")[0]}?from={start + faulty.page}>; rel="next"'
        return reply(200, Index(tuple(found[start : start + faulty.page])).to_bytes(), headers)

    def on_put(seen: Any) -> Any:
        answer = put(seen)
        if "/manifests/" in seen.path and b'"subject"' in seen.body:
            answer.headers["OCI-Subject"] = json.loads(seen.body)["subject"]["digest"]
        return answer

    for name, value in {"on_get": on_get, "on_put": on_put, "claimed": claimed, "page": 2}.items():
        monkeypatch.setattr(faulty, name, value, raising=False)
    return faulty


def true_referrers(registry: Any, subject: str) -> list[Descriptor]:
    found = []
    for digest, (media_type, data) in sorted(registry.manifests.items()):
        body = json.loads(data)
        if digest.startswith("sha256:") and body.get("subject", {}).get("digest") == subject:
            kind = body.get("artifactType") or body["config"]["mediaType"]
            found.append(Descriptor(media_type, digest, len(data), body.get("annotations", {}), kind))
    return found


def remote(host: str, name: str) -> RemoteReference:
    return RemoteReference.parse(f"{host}/{name}")


def note(text: str) -> Attachment:
    return Attachment(text.encode(), NOTE)


def index_of(layout: Layout, bento: Ref, *images: Descriptor) -> Index:
    """The index of a Bento, with images before it."""
    manifest = Manifest.from_bytes(layout.read(bento.digest))
    config = BentoConfig.from_bytes(layout.read(manifest.config.digest))
    models: list[tuple[NeededModel, Descriptor]] = []
    for each in config.models:
        size = layout.blob_path(each.digest).stat().st_size
        models.append((each, Descriptor(MANIFEST, each.digest, size)))
    plain = bento_index(bento.descriptor, config, models)
    return Index((*images, *plain.manifests), artifact_type=plain.artifact_type, annotations=plain.annotations)


def sign_all(layout: Layout, bento: Ref) -> set[str]:
    """Attach something to the Bento, to its model, to its index, and to one of those again."""
    index = keep_index(layout, index_of(layout, bento).to_bytes())
    model = RefStore(layout).get("models", "iris:1")
    subjects = (bento.digest, model.digest, index.digest)
    made = [attach(layout, each, NOTE, [note(f"signed {each}")], {"by": "ada"}).digest for each in subjects]
    made.append(attach(layout, bento.digest, SBOM, [Attachment(b"{}" * 500, SBOM)]).digest)
    made.append(attach(layout, made[-1], NOTE, [note("the SBOM is signed too")]).digest)
    return set(made)


def test_they_go_out_with_a_push_and_come_back(host: str, here: Layout, bento: Ref, tmp_path: Path) -> None:
    made = sign_all(here, bento)
    target, there = remote(host, "refs/whole:1"), Layout(tmp_path / "b")
    with Registry(host, push=True) as registry:
        pushed = transfer.push_bento(here, bento, target, registry)
        again = transfer.push_bento(here, bento, target, registry)
        seen = inspect(registry, target)
        pulled = transfer.pull(there, target, registry)
        once_more = transfer.pull(there, target, registry)
        bare = transfer.pull(Layout(tmp_path / "c"), target, registry, referrers=False)
    assert (pushed.referrers, again.referrers, again.moved) == (5, 5, 0)
    assert {each["digest"] for each in seen.referrers} == made
    assert (pulled.referrers, pulled.notes) == (5, ())
    assert (once_more.referrers, once_more.moved) == (5, 0)
    assert bare.referrers == 0
    subjects = [bento.digest, RefStore(there).get("models", "iris").digest, str(pushed.index)]
    assert {each.digest for each in referrers_below(there, subjects)} == made
    assert referrers_below(Layout(tmp_path / "c"), subjects) == []


def test_a_push_from_where_they_were_pulled_is_the_same(host: str, here: Layout, bento: Ref, tmp_path: Path) -> None:
    made, there = sign_all(here, bento), Layout(tmp_path / "b")
    with Registry(host, push=True) as registry:
        first = transfer.push_bento(here, bento, remote(host, "refs/one:1"), registry)
        transfer.pull(there, remote(host, "refs/one:1"), registry)
        second = transfer.push_bento(there, RefStore(there).get("bentos", "svc"), remote(host, "refs/two:1"), registry)
        assert first.index == second.index
        seen = inspect(registry, remote(host, "refs/two:1"))
    assert {each["digest"] for each in seen.referrers} == made


def test_a_model_takes_its_own_along(host: str, here: Layout, bento: Ref, tmp_path: Path) -> None:
    sign_all(here, bento)
    model = RefStore(here).get("models", "iris:1")
    with Registry(host, push=True) as registry:
        pushed = transfer.push_model(here, model, remote(host, "refs/model:1"), registry)
        pulled = transfer.pull(Layout(tmp_path / "b"), remote(host, "refs/model:1"), registry)
    # where the registry lists the view as a volume among the referrers, that is none of them
    assert (pushed.referrers, pulled.referrers, pulled.notes) == (1, 1, ())
    assert len(referrers(Layout(tmp_path / "b"), model.digest, NOTE)) == 1


def test_a_copy_takes_them_along(host: str, here: Layout, bento: Ref, real_registry: Any) -> None:
    made = sign_all(here, bento)
    with Registry(host, push=True) as registry, Registry(real_registry.host, push=True) as other:
        transfer.push_bento(here, bento, remote(host, "refs/source:1"), registry)
        copied = copy(remote(host, "refs/source:1"), registry, remote(real_registry.host, "refs/copy"), other)
        again = copy(remote(host, "refs/source:1"), registry, remote(real_registry.host, "refs/copy"), other)
        seen = inspect(other, remote(real_registry.host, "refs/copy:1"))
    assert (copied.referrers, again.sent, copied.notes) == (5, 0, ())
    assert {each["digest"] for each in seen.referrers} == made


def test_commands_show_them(host: str, here: Layout, bento: Ref, capsys: pytest.CaptureFixture[str]) -> None:
    made = sign_all(here, bento)
    store = ["--store", str(here.root)]
    assert main(["push", "svc", f"{host}/refs/shown:1", *store]) == 0

    def printed(*arguments: str) -> Any:
        capsys.readouterr()
        assert main([*arguments, *store]) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    for where in ("svc", f"{host}/refs/shown:1"):
        shown = printed("show", where, "--json")["referrers"]
        assert {each["digest"] for each in shown} == made
        assert {each["artifact_type"] for each in shown} == {NOTE, SBOM}
        assert SBOM in printed("show", where)
    (signature,) = printed("model", "show", "iris", "--json")["referrers"]
    assert (signature["artifact_type"], signature["annotations"]) == (NOTE, {"by": "ada"})
    assert "4 test.note" in printed("list", f"{host}/refs/shown")
