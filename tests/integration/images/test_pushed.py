"""Images in a registry: what travels, what is mounted, and what comes back with a pull."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import StoredBento
from bentotool.oci.descriptor import INDEX
from bentotool.oci.layout import Layout
from bentotool.oci.registry import Registry

pytestmark = pytest.mark.timeout(120)
BIG = "usr/lib/big.so"


class Counter:
    """Passes connections on to a registry and counts the bytes that come from its clients."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target, timeout=20)
            except OSError:
                return
            self._open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if counted:
                    with self._lock:
                        self.received += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()
        for each in self._open:
            each.close()


@pytest.fixture
def counter(real_registry: Any) -> Iterator[Counter]:
    made = Counter(real_registry.host)
    yield made
    made.close()


@pytest.fixture
def push(cli: Callable[..., Any], base: str, wheels: Path) -> Callable[..., Any]:
    def run(bento: StoredBento, *arguments: str, status: int = 0) -> Any:
        if "--base" not in arguments:
            arguments = ("--base", base, *arguments)
        return cli("containerize", bento.tag, "--find-links", str(wheels), "--push", *arguments, status=status)

    return run


def test_a_tag_that_runs_and_that_is_pulled(
    cli: Callable[..., Any], push: Callable[..., Any], bento: StoredBento, real_registry: Any, tmp_path: Path,
    require_tool: Callable[[str], str],
) -> None:  # fmt: skip
    name = f"{real_registry.host}/images/run:1"
    done = push(bento, "-t", name, "--platform", "linux/amd64,linux/arm64")
    assert done["pushed"][0]["images"] == ["linux/amd64", "linux/arm64"]
    inspect = [require_tool("skopeo"), "inspect", "--tls-verify=false", "--override-arch", "amd64", f"docker://{name}"]
    seen = json.loads(subprocess.run(inspect, capture_output=True, check=True, timeout=60).stdout)
    assert seen["Layers"] == [layer["digest"] for layer in done["images"][0]["layers"]]
    there = str(tmp_path / "there")
    pulled = cli("pull", name, "--store", there)
    assert (pulled["digest"], pulled["images"]) == (bento.digest, ["linux/amd64", "linux/arm64"])
    assert pulled["index"] == done["index"]
    again = cli("push", bento.tag, f"{real_registry.host}/images/plain:1")
    assert again["index"] == done["index"]
    assert again["sent"] < 5_000  # the images' provenance, which no other repository is asked for


def test_a_command_pushes_what_it_made(
    push: Callable[..., Any], bento: StoredBento, real_registry: Any, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    """Another one makes images of the same Bento between this one's making and pushing."""
    from bentotool.images import containerize
    from bentotool.images.plan import plan_image

    make = containerize.build_images

    def interleaved(*arguments: Any) -> Any:
        made = make(*arguments)
        store, found, request, *rest = arguments
        plans = [plan_image(store, found, f"linux/{each}", base=request.plans[0].base) for each in ("amd64", "arm64")]
        make(store, found, replace(request, plans=tuple(plans)), *rest)
        return made

    monkeypatch.setattr(containerize, "build_images", interleaved)
    name = f"{real_registry.host}/images/meanwhile"
    done = push(bento, "-t", f"{name}:1", "--platform", "linux/arm64")
    assert done["pushed"][0]["images"] == ["linux/arm64"]
    monkeypatch.undo()
    both = push(bento, "-t", f"{name}:2", "--platform", "linux/amd64,linux/arm64")
    assert len(both["pushed"][0]["images"]) == 2
    with Registry(real_registry.host) as registry:
        for tag, each in (("1", done["index"]), ("2", both["digest"])):
            assert registry.get_manifest("images/meanwhile", tag, (INDEX,)).descriptor.digest == each


def test_an_edit_of_the_code_sends_one_layer(
    push: Callable[..., Any], build: Callable[..., StoredBento], counter: Counter, make_base: Any
) -> None:
    base = f"oci:{make_base('large', layers=((BIG, 'usr/local/bin/python3.12'),))}"
    from_first = push(build(), "-t", f"{counter.host}/images/edit:1", "--base", base)
    sent = counter.received
    changed = build(service=_edited())
    second = push(changed, "-t", f"{counter.host}/images/edit:2", "--base", base)
    layers = [[layer["digest"] for layer in done["images"][0]["layers"]] for done in (from_first, second)]
    assert [one == other for one, other in zip(*layers, strict=True)] == [True] * (len(layers[0]) - 1) + [False]
    assert second["images"][0]["layers"][-1]["kind"] == "code"
    assert counter.received - sent < 200_000
    assert second["pushed"][0]["sent"] < 100_000


def _edited() -> str:
    return (
        "import bentotool\n\n@bentotool.service\nclass Double:\n    model = bentotool.models.BentoModel('iris:1')\n\n"
        "    @bentotool.api\n    def predict(self, x: float) -> float:\n        return 3 * x\n"
    )


def test_a_base_of_the_same_registry_is_mounted(
    push: Callable[..., Any], bento: StoredBento, real_registry: Any, base: str, require_tool: Callable[[str], str]
) -> None:
    reference = f"{real_registry.host}/mounted/base:1"
    copy = [require_tool("skopeo"), "copy", "-q", "--all", "--dest-tls-verify=false", base, f"docker://{reference}"]
    subprocess.run(copy, check=True, timeout=60)
    done = push(bento, "-t", f"{real_registry.host}/mounted/app:1", "--base", reference)
    other = push(bento, "-t", f"{real_registry.host}/mounted/other:1", "--base", reference)
    assert other["pushed"][0]["sent"] < 5_000  # all layers are in the registry, in another repository
    with Registry(real_registry.host) as registry:
        for layer in done["images"][0]["layers"]:
            assert registry.blob_exists("mounted/other", layer["digest"])


def test_a_model_that_is_there_is_mounted(
    cli: Callable[..., Any], push: Callable[..., Any], bento: StoredBento, real_registry: Any
) -> None:
    cli("model", "push", "iris:1", f"{real_registry.host}/models/iris:1")
    cli("push", bento.tag, f"{real_registry.host}/models/bento:1")
    done = push(bento, "-t", f"{real_registry.host}/models/image:1")
    with Registry(real_registry.host) as registry:
        assert all(registry.blob_exists("models/image", layer["digest"]) for layer in done["images"][0]["layers"])


def test_packages_of_another_image_are_mounted(
    push: Callable[..., Any], build: Callable[..., StoredBento], real_registry: Any, make_base: Any
) -> None:
    base = f"oci:{make_base('large', layers=((BIG, 'usr/local/bin/python3.12'),))}"
    first = push(build(), "-t", f"{real_registry.host}/packages/one:1", "--base", base)
    other = push(build(service=_edited()), "-t", f"{real_registry.host}/packages/two:1", "--base", base)
    assert first["digest"] != other["digest"]
    assert other["pushed"][0]["sent"] < 400_000  # the runtime's wheel, of the Bento
    assert other["pushed"][0]["sent"] < first["pushed"][0]["sent"] / 2


@pytest.mark.parametrize(
    ("method", "path", "status"), [("PUT", "/manifests/", 403), ("POST", "/blobs/uploads/", 403), ("POST", "/v2/", 405)]
)
def test_a_registry_that_refuses_leaves_no_tag(
    push: Callable[..., Any], bento: StoredBento, make_faulty: Callable[..., Any], reply: Any,
    fault: Any, method: str, path: str, status: int,
) -> None:  # fmt: skip
    registry = make_faulty()
    registry.faults.append(fault(method, path, times=100, instead=reply(status, b"no")))
    refused = push(bento, "-t", f"{registry.host}/no/image:1", status=5)
    assert registry.host in refused["message"]
    assert refused["hint"]
    assert not registry.manifests
    absent = push(bento, "-t", "127.0.0.1:9/no/registry:1", status=5)
    assert "127.0.0.1:9" in absent["message"]


def test_what_was_pushed_before_a_registry_refused(
    push: Callable[..., Any], bento: StoredBento, real_registry: Any, make_faulty: Callable[..., Any], reply: Any,
    fault: Any,
) -> None:  # fmt: skip
    registry = make_faulty()
    registry.faults.append(fault("PUT", "/manifests/", times=100, instead=reply(403, b"no")))
    first = f"{real_registry.host}/images/first:1"
    refused = push(bento, "-t", first, "-t", f"{registry.host}/no/image:1", status=5)
    assert [each["remote"] for each in refused["pushed"]] == [first]
    assert registry.host in refused["message"]
    assert not registry.manifests
