"""Faults in any order, several to a push and a pull: equal digests or a typed error, and the next try is whole again.

``BENTOTOOL_TEST_SEEDS=1000`` tries more sequences.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bentotool import transfer
from bentotool.errors import BentotoolError
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.credentials import CredentialStore
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import RefStore
from bentotool.oci.registry import Registry
from bentotool.oci.retry import RetryPolicy
from bentotool.oci.transport import Timeouts
from bentotool.oci.uploads import UploadSizes

pytestmark = pytest.mark.timeout(60)

SEEDS = range(int(os.environ.get("BENTOTOOL_TEST_SEEDS", "40")))
STATUSES = (400, 401, 403, 404, 408, 413, 416, 429, 500, 502, 503, 504)
PARTS = ("/blobs/", "/manifests/", "/upload", "/token", "/")


def change_of(rng: random.Random) -> Callable[[Any], Any]:
    """Something that is wrong with an answer."""

    def other_bytes(reply: Any) -> Any:
        body = bytearray(reply.body)
        if body:
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        return dataclasses.replace(reply, body=bytes(body))

    def headers(**fields: str) -> Callable[[Any], Any]:
        return lambda reply: dataclasses.replace(reply, headers={**reply.headers, **fields})

    def with_fields(**fields: Any) -> Callable[[Any], Any]:
        return lambda reply: dataclasses.replace(reply, **fields)

    cut, junk = rng.randrange(200_000), rng.randbytes(rng.randrange(300))
    return rng.choice(
        [
            other_bytes,
            with_fields(cut=cut),
            with_fields(cut=cut, reset=True),
            with_fields(drip=0.02),
            with_fields(drip_head=0.02),
            with_fields(chunked=rng.choice([-1, 1000, 70_001]), drip=0.02),
            with_fields(length=rng.randrange(400_000)),
            with_fields(body=junk),
            with_fields(status=rng.choice(STATUSES)),
            headers(Location=rng.choice(["/upload/99", "//", "http://[::1", "", "/v2/"])),
            headers(Range=rng.choice(["0-0", "0-99999", "bytes=0-5", "9-3", "0-999999999999"])),
            headers(**{"Content-Range": rng.choice(["bytes 0-1/2", "bytes 50000-60000/*", "x"])}),
            headers(**{"Docker-Content-Digest": "sha256:" + "0" * 64, "Content-Type": "text/html"}),
        ]
    )


def faults_of(rng: random.Random, simulator: ModuleType) -> list[Any]:
    """One to five faults, each with requests of its own."""

    def one() -> Any:
        fault = simulator.Fault(
            rng.choice(["GET", "GET", "HEAD", "POST", "PUT", "PUT", "PATCH", "PATCH"]),
            rng.choice(PARTS),
            times=rng.choice([1, 1, 1, 2, 3]),
            skip=rng.choice([0, 0, 1, 2, 4]),
        )
        kind = rng.randrange(3)
        if kind == 0:
            fault.take = rng.randrange(70_000)
        elif kind == 1:
            fault.change = change_of(rng)
        else:
            wait = {"Retry-After": rng.choice(["0", "-1", "x", "86400", "Thu, 01 Jan 1970 00:00:00 GMT"])}
            fault.instead = simulator.Reply(rng.choice(STATUSES), rng.randbytes(20), wait)
        return fault

    return [one() for _ in range(rng.randint(1, 5))]


def client(host: str, **options: Any) -> Registry:
    store = CredentialStore(lambda *asked: None, environ={"DOCKER_CONFIG": "/nowhere"})
    retry = RetryPolicy(attempts=4, base=0.001, budget=1)
    sizes = UploadSizes(60_000, 60_000)
    return Registry(host, credentials=store, retry=retry, timeouts=Timeouts(0.5, 0.5), sizes=sizes, **options)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_sequence_of_faults_ends_whole_or_with_a_typed_error(
    make_faulty: Callable[..., Any],
    simulator: ModuleType,
    make_model: Callable[..., StoredModel],
    tmp_path: Path,
    seed: int,
) -> None:
    rng = random.Random(seed)
    registry = make_faulty()
    registry.rotate, registry.strict, registry.keeps_partial = (rng.random() < 0.5 for _ in range(3))
    registry.absolute, registry.etags = rng.random() < 0.5, rng.random() < 0.5
    registry.ranges = rng.choice(["yes", "yes", "ignored", "refused"])
    registry.lifetime = rng.choice([None, 0.02, 60])
    source, target = Layout(tmp_path / "source"), Layout(tmp_path / "target")
    files = {"w.bin": bytes(8) + random.Random(seed).randbytes(250_000), "config.json": b"{}", "sub/t.bin": b"t" * 999}
    model = make_model(source, files=files)
    remote = RemoteReference.parse(f"{registry.host}/r:1")

    def push() -> None:
        with client(registry.host, push=True) as writing:
            done = transfer.push_model(source, RefStore(source).get("models", "iris"), remote, writing, jobs=2)
        assert done.digest == model.digest
        assert registry.manifests["1"][1] == source.read(model.digest)

    def pull() -> None:
        with client(registry.host) as reading:
            assert transfer.pull(target, remote, reading, jobs=2).digest == model.digest

    for act in (push, pull):
        registry.faults = shown = faults_of(rng, simulator)
        described = repr([dataclasses.replace(fault) for fault in shown])
        status = 0
        try:
            act()
        except BentotoolError as error:
            status = error.exit_status
        assert status in (0, 3, 4, 5, 6), described
        if act is pull and RefStore(target).list("models"):
            assert ModelStore(target).get("iris:1").digest == model.digest
        registry.faults = []
        registry.lifetime = None if registry.lifetime == 0.02 else registry.lifetime
        act()
    stored = [path.name for path in target.blobs.iterdir()]
    assert stored
    assert all(target.verify_blob(f"sha256:{name}") for name in stored)
    assert [path.name for path in (target.root / "tmp").iterdir() if path.name.startswith("part-")] == []
