"""Sizes that registries refuse are told before anything is sent."""

from __future__ import annotations

import pytest

from bentotool.errors import RemoteError, UsageError
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.limits import check_sizes, largest_blob

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def blob(size: int) -> Descriptor:
    notes = {"org.opencontainers.image.title": "model-00001.safetensors.tar"}
    return Descriptor("application/x", "sha256:" + "a" * 64, size, notes)


@pytest.mark.parametrize(
    ("registry", "limit"), [("ghcr.io", 10**10), (ECR, 52_000 << 20), ("team.azurecr.io", 200 << 30)]
)
def test_a_known_limit_is_named_with_the_file(registry: str, limit: int) -> None:
    check_sizes(registry, [blob(limit)])
    with pytest.raises(RemoteError, match=r"model-00001\.safetensors has") as failure:
        check_sizes(registry, [blob(1), blob(limit + 1)])
    assert registry in failure.value.message
    assert failure.value.details["limit"] == limit


@pytest.mark.parametrize("registry", ["localhost:5000", "docker.io", "ghcr.io.example.com", "evilghcr.io", "quay.io"])
def test_nothing_is_assumed_of_others(registry: str) -> None:
    assert largest_blob(registry) is None
    check_sizes(registry, [blob(1 << 50)])


def test_the_user_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_MAX_BLOB", "0")
    check_sizes("ghcr.io", [blob(1 << 50)])
    monkeypatch.setenv("BENTOTOOL_MAX_BLOB", "100")
    with pytest.raises(RemoteError, match="100 bytes"):
        check_sizes("localhost:5000", [blob(101)])
    monkeypatch.setenv("BENTOTOOL_MAX_BLOB", "10GB")
    with pytest.raises(UsageError):
        check_sizes("localhost:5000", [])
