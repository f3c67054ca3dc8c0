"""Signatures, SBOMs and the like: they go out with a push, are shown, and come back with a pull."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.attached import Attachment, attach, referrer_bytes, referrers, referrers_below
from bentotool.oci.checking import verify_store
from bentotool.oci.descriptor import EMPTY, INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import FILES_ANNOTATION, Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry
from bentotool.oci.retry import RetryPolicy
from bentotool.transfer.copy import copy
from bentotool.transfer.formats import MODEL_TYPE
from bentotool.transfer.images import keep_tag_index
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

    def on_head(seen: Any) -> Any:
        whole = on_get(seen)
        headers = {**whole.headers, "Docker-Content-Digest": sha256_bytes(whole.body)}
        return reply(whole.status, b"", headers, length=len(whole.body))

    for name, value in {"on_get": on_get, "on_put": on_put, "on_head": on_head, "claimed": claimed, "page": 2}.items():
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


def sign_all(layout: Layout, bento: Ref) -> set[str]:
    """Attach something to the Bento, to its model, to its index, and to one of those again."""
    index = keep_tag_index(layout, bento.digest)
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


def test_a_push_leaves_them_where_they_are_not_wanted(host: str, here: Layout, bento: Ref) -> None:
    sign_all(here, bento)
    for reference, command in (("svc", ("push",)), ("iris", ("model", "push"))):
        target = f"{host}/refs/without-{reference}:1"
        assert main([*command, reference, target, "--no-referrers", "--store", str(here.root)]) == 0
        with Registry(host) as registry:
            assert inspect(registry, RemoteReference.parse(target)).referrers == ()


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


def test_an_archive_takes_them_along(
    require_tool: Callable[[str], str], here: Layout, bento: Ref, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, file, there = sign_all(here, bento), tmp_path / "svc.tar", ["--store", str(tmp_path / "b")]
    assert main(["export", "svc", str(file), "--store", str(here.root)]) == 0
    assert main(["import", str(file), *there]) == 0
    assert main(["store", "verify", *there]) == 0
    capsys.readouterr()
    assert main(["show", "svc", "--json", *there]) == 0
    assert {each["digest"] for each in json.loads(capsys.readouterr().out)["referrers"]} == made
    # they are in nobody's way
    inspecting = [require_tool("skopeo"), "inspect", "--raw", f"oci-archive:{file}:svc:7"]
    seen = subprocess.run(inspecting, check=True, capture_output=True, timeout=60).stdout
    assert sha256_bytes(seen) == bento.digest


def test_what_oras_attaches_is_pulled(
    require_tool: Callable[[str], str], host: str, here: Layout, bento: Ref, tmp_path: Path
) -> None:
    attach(here, bento.digest, NOTE, [note("ours")])
    oras, target, plain = require_tool("oras"), f"{host}/refs/oras:1", "--plain-http"
    (tmp_path / "sbom.json").write_bytes(b'{"bomFormat": "CycloneDX"}')
    with Registry(host, push=True) as registry:
        transfer.push_bento(here, bento, remote(host, "refs/oras:1"), registry)
        attaching = [oras, "attach", plain, "--artifact-type", SBOM, target, f"sbom.json:{SBOM}"]
        subprocess.run(attaching, check=True, capture_output=True, timeout=60, cwd=tmp_path)
        there = Layout(tmp_path / "b")
        pulled = transfer.pull(there, remote(host, "refs/oras:1"), registry)
    (theirs,) = referrers(there, str(pulled.index), SBOM)
    assert there.read(theirs.manifest.layers[0].digest) == b'{"bomFormat": "CycloneDX"}'
    assert (pulled.referrers, len(referrers(there, bento.digest, NOTE))) == (2, 1)
    for subject, kind in ((pulled.index, SBOM), (bento.digest, NOTE)):
        asked = [oras, "discover", plain, "-o", "json", f"{host}/refs/oras@{subject}"]
        seen = json.loads(subprocess.run(asked, check=True, capture_output=True, timeout=60).stdout)
        assert [each["artifactType"] for each in seen["manifests"]] == [kind]


def test_the_list_under_a_tag_is_only_for_registries_without_the_api(host: str, here: Layout, bento: Ref) -> None:
    sign_all(here, bento)
    with Registry(host, push=True) as registry:
        transfer.push_bento(here, bento, remote(host, "refs/tags:1"), registry)
        tags = [tag for tag in registry.get_tags("refs/tags") if tag.startswith("sha256-")]
    assert len(tags) == (4 if "tag" in os.environ["PYTEST_CURRENT_TEST"].rpartition("[")[2] else 0)


def descriptor(data: bytes, media_type: str = MANIFEST) -> Descriptor:
    return Descriptor(media_type, sha256_bytes(data), len(data))


@pytest.fixture
def pushed(listing: Any, here: Layout, bento: Ref) -> Descriptor:
    """A model in the registry that has the API; its descriptor."""
    model = RefStore(here).get("models", "iris:1")
    with Registry(listing.host, push=True) as registry:
        transfer.push_model(here, model, remote(listing.host, "r:1"), registry)
    return Descriptor(MANIFEST, model.digest, model.descriptor.size)


def pull_model(listing: Any, folder: Path) -> transfer.Transferred:
    with Registry(listing.host, retry=RetryPolicy(attempts=2, base=0.01)) as registry:
        return transfer.pull(Layout(folder), remote(listing.host, "r:1"), registry, expect="model")


def claim(listing: Any, subject: Descriptor, *made: bytes) -> None:
    """Let the registry have manifests, and list them for a subject whatever they say."""
    for data in made:
        listing.add_manifest(data, "x")
    listing.claimed[subject.digest] = [descriptor(data) for data in made]


def lay(listing: Any, subject: Descriptor, text: str) -> bytes:
    """A true referrer in the registry, with its content."""
    for blob in (note(text), Attachment(b"{}", EMPTY)):
        listing.add_blob(blob.data)
    return referrer_bytes(subject, NOTE, [note(text)])


def odd_manifest(listing: Any, subject: Descriptor, case: str) -> bytes:
    """A manifest that says something wrong."""
    empty = Descriptor(EMPTY, listing.add_blob(b"{}"), 2)
    virtual = Descriptor("x.tar", "sha256:" + "1" * 64, 1536, {FILES_ANNOTATION: '[{"path":"a"}]'})
    huge = Descriptor(NOTE, "sha256:" + "6" * 64, 1 << 40)
    long = {"text": "x" * (300 << 10)}
    made = {
        "with a huge manifest": Manifest(empty, (empty,), artifact_type=NOTE, subject=subject, annotations=long),
        "of another subject": Manifest(empty, (empty,), artifact_type=NOTE, subject=empty),
        "of no subject": Manifest(empty, (empty,), artifact_type=NOTE),
        "with huge content": Manifest(empty, (huge,), artifact_type=NOTE, subject=subject),
        "a model": Manifest(empty, (empty,), artifact_type=MODEL_TYPE, subject=subject),
        "with virtual layers": Manifest(empty, (virtual,), artifact_type=NOTE, subject=subject),
    }
    return made[case].to_bytes() if case in made else lay(listing, subject, "wrong")


def spoil(listing: Any, subject: Descriptor, case: str) -> None:
    """Make something wrong with the first of the claimed referrers."""
    listed = listing.claimed[subject.digest]
    first = listed[0]
    if case == "with other bytes":
        listing.blobs[sha256_bytes(b"wrong")] = b"WRONG"
    elif case == "without its content":
        del listing.blobs[sha256_bytes(b"wrong")]
    elif case == "gone":
        del listing.manifests[first.digest]
    elif case == "of another size":
        listed[0] = Descriptor(MANIFEST, first.digest, first.size + 1)
    elif case == "of another type":
        listed[0] = Descriptor("application/x-odd", first.digest, first.size)
    elif case == "an index":
        data = Index((), artifact_type=NOTE, subject=subject).to_bytes()
        listing.add_manifest(data, "x", INDEX)
        listed[0] = descriptor(data, INDEX)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("of another subject", "does not refer to"),
        ("of no subject", "does not refer to"),
        ("gone", "has no r@"),
        ("of another size", "not what the list says"),
        ("of another type", "application/x-odd"),
        ("with huge content", "more than a pull brings along"),
        ("a model", "an artifact of its own"),
        ("with other bytes", "other bytes|expected sha256"),
        ("without its content", "lacks its blob"),
        ("with virtual layers", "cannot be attached"),
        ("an index", "image.index"),
        ("with a huge manifest", "of type .* bytes"),
    ],
)
def test_a_referrer_that_is_not_right_is_left_out(
    listing: Any, pushed: Descriptor, tmp_path: Path, case: str, said: str
) -> None:
    right = lay(listing, pushed, "right")
    claim(listing, pushed, odd_manifest(listing, pushed, case), right)
    spoil(listing, pushed, case)
    done = pull_model(listing, tmp_path / "b")
    assert done.referrers == 1
    (reason,) = done.notes
    assert re.search(said, reason), reason
    assert [each.digest for each in referrers(Layout(tmp_path / "b"), pushed.digest)] == [sha256_bytes(right)]
    assert verify_store(Layout(tmp_path / "b")).faults == ()


@pytest.mark.parametrize("page", [50, 1000])
def test_a_thousand_are_cut_short(listing: Any, pushed: Descriptor, tmp_path: Path, page: int) -> None:
    listing.page = page
    claim(listing, pushed, *(lay(listing, pushed, str(number)) for number in range(1000)))
    done = pull_model(listing, tmp_path / "b")
    assert (done.referrers, len(done.notes)) == (64, 1)
    assert "more than 64 referrers" in done.notes[0]
    assert len(listing.requests("GET", f"/referrers/{pushed.digest}")) == (2 if page == 50 else 1)


def test_more_than_a_list_may_hold_are_left_out(listing: Any, pushed: Descriptor, tmp_path: Path) -> None:
    listing.page = 5000
    listing.claimed[pushed.digest] = [Descriptor(MANIFEST, f"sha256:{number:064x}", 1) for number in range(1001)]
    done = pull_model(listing, tmp_path / "b")
    assert (done.referrers, len(done.notes)) == (0, 1)
    assert "cannot be listed" in done.notes[0]


def test_pages_without_end_and_lists_in_circles_end(
    listing: Any, reply: Any, pushed: Descriptor, tmp_path: Path
) -> None:
    one = lay(listing, pushed, "one")
    two = lay(listing, descriptor(one), "two")
    claim(listing, pushed, one, one, one)
    claim(listing, descriptor(one), two, one)
    claim(listing, descriptor(two), one, two)
    done = pull_model(listing, tmp_path / "b")
    assert (done.referrers, done.notes) == (2, ())
    empty = Index(()).to_bytes()
    endless = {"Content-Type": INDEX, "Link": f'</v2/r/referrers/{pushed.digest}>; rel="next"'}
    listing.script["GET", f"/v2/r/referrers/{pushed.digest}"] = [reply(200, empty, endless) for _ in range(500)]
    done = pull_model(listing, tmp_path / "c")
    assert (done.referrers, len(done.notes)) == (0, 1)
    assert "pages" in done.notes[0]


def test_a_long_chain_is_followed_three_levels(listing: Any, pushed: Descriptor, tmp_path: Path) -> None:
    subject, below = pushed, list[bytes]()
    for number in range(10):
        below.append(lay(listing, subject, str(number)))
        listing.add_manifest(below[-1], "x")
        subject = descriptor(below[-1])
    assert pull_model(listing, tmp_path / "b").referrers == 3


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_registry_that_fails_for_them_does_not_fail_the_pull(
    listing: Any, reply: Any, pushed: Descriptor, tmp_path: Path, status: int
) -> None:
    listing.script["GET", "/v2/r/referrers/"] = [reply(status, b"no") for _ in range(50)]
    done = pull_model(listing, tmp_path / "b")
    assert (done.referrers, len(done.notes)) == (0, 1)
    assert "cannot be listed" in done.notes[0]
    with Registry(listing.host, retry=RetryPolicy(attempts=2, base=0.01)) as registry:
        asked = len(listing.requests("GET", "/referrers/"))
        bare = transfer.pull(Layout(tmp_path / "c"), remote(listing.host, "r:1"), registry, referrers=False)
    assert (bare.notes, len(listing.requests("GET", "/referrers/"))) == ((), asked)


def test_a_command_says_what_is_left_out(
    listing: Any, pushed: Descriptor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strays = [lay(listing, Descriptor(MANIFEST, f"sha256:{number:064x}", 5), "x") for number in range(9)]
    claim(listing, pushed, *strays)
    assert main(["model", "pull", f"{listing.host}/r:1", "--store", str(tmp_path / "b")]) == 0
    warnings = capsys.readouterr().err
    assert warnings.count("does not refer to") == 5
    assert "and 4 more" in warnings
    assert main(["model", "pull", f"{listing.host}/r:1", "--store", str(tmp_path / "c"), "--no-referrers"]) == 0
    assert "warning" not in capsys.readouterr().err
