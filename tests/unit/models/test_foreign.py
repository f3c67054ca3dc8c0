"""Manifests of other tools, read without a registry: what they say is a stranger's word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UsageError, VerificationError
from bentotool.models.foreign import family_of, read_foreign
from bentotool.oci.descriptor import Descriptor, Manifest

DIGEST = "sha256:" + "a" * 64
CNCF, KIT, DOCKER = "application/vnd.cncf.model", "application/vnd.kitops.modelkit", "application/vnd.docker.ai"


def layer(media_type: str, size: int = 10, **notes: str) -> Descriptor:
    names = {"path": "org.cncf.model.filepath", "title": "org.opencontainers.image.title",
             "facts": "org.cncf.model.file.metadata+json"}  # fmt: skip
    return Descriptor(media_type, DIGEST, size, {names[key]: value for key, value in notes.items()})


def manifest(*layers: Descriptor, config: str = f"{CNCF}.config.v1+json", **more: Any) -> Manifest:
    return Manifest(Descriptor(config, DIGEST, 2), layers, **more)


def kit(*layers: Descriptor) -> Manifest:
    return manifest(*layers, config=f"{KIT}.config.v1+json")


@pytest.mark.parametrize(
    ("artifact_type", "config", "family"),
    [
        (f"{CNCF}.manifest.v1+json", "application/vnd.oci.empty.v1+json", "ModelPack artifact"),
        (None, f"{CNCF}.config.v1+json", "ModelPack artifact"),
        ("application/vnd.cnai.model.manifest.v1+json", "application/json", "ModelPack artifact"),
        (None, f"{KIT}.config.v1+json", "KitOps ModelKit"),
        (None, f"{DOCKER}.model.config.v0.1+json", "Docker model"),
        (None, "application/vnd.oci.image.config.v1+json", None),
        ("application/vnd.bentotool.bento.v1", "application/json", None),
        (None, "application/vnd.cncf.modelx", None),
    ],
)
def test_families(artifact_type: str | None, config: str, family: str | None) -> None:
    assert family_of(manifest(config=config, artifact_type=artifact_type)) == family


@pytest.mark.parametrize(
    ("config", "artifact_type", "titles", "known"),
    [
        ("application/vnd.oci.empty.v1+json", "application/vnd.unknown.artifact.v1", ["a.onnx", "b/c.txt"], True),
        ("application/vnd.acme.config", None, ["a.onnx"], True),
        ("application/vnd.oci.empty.v1+json", "application/vnd.acme", ["a.onnx", ""], False),
        ("application/vnd.oci.empty.v1+json", "application/vnd.acme", [], False),
        ("application/vnd.oci.image.config.v1+json", None, ["a.onnx"], False),
        ("application/vnd.cncf.helm.config.v1+json", None, ["a.onnx"], False),
        ("application/vnd.oci.empty.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json", ["a.json"], False),
        ("application/json", "application/vnd.bentotool.bento.v1", ["code.tar"], False),
    ],
)
def test_files_with_titles(config: str, artifact_type: str | None, titles: list[str], known: bool) -> None:
    layers = [layer("application/octet-stream", title=title) for title in titles]
    made = manifest(*layers, config=config, artifact_type=artifact_type)
    assert family_of(made) == ("artifact of files" if known else None)
    if known:
        assert [each.path for each in read_foreign(made, b"not JSON").layers] == titles
        assert family_of(manifest(*layers, config=config, subject=layers[0])) is None


@pytest.mark.parametrize("kind", ["weight", "weight.config", "doc", "code", "dataset"])
@pytest.mark.parametrize("packing", ["raw", "tar", "tar+gzip", "tar+zstd"])
def test_all_types_of_modelpack(kind: str, packing: str) -> None:
    (found,) = read_foreign(manifest(layer(f"{CNCF}.{kind}.v1.{packing}", path="a/b")), b"{}").layers
    assert (found.packed, found.compression) == (packing.partition("+")[0], packing.partition("+")[2])


@pytest.mark.parametrize(
    "media_type",
    [
        f"{CNCF}.weight.v1.tar+brotli", f"{CNCF}.weight.v2.tar", f"{CNCF}.weight.v1.tar ", f"{CNCF}.other.v1.raw",
        "application/octet-stream", "application/vnd.oci.image.layer.v1.tar+gzip+gzip", "",
    ],
)  # fmt: skip
def test_an_unknown_layer_is_refused_rather_than_left_out(media_type: str) -> None:
    with pytest.raises(VerificationError, match="not known"):
        read_foreign(manifest(layer(media_type, path="a")), b"{}")


def test_a_raw_layer_says_which_file_it_is() -> None:
    with pytest.raises(VerificationError, match="which file"):
        read_foreign(manifest(layer(f"{CNCF}.weight.v1.raw")), b"{}")
    with pytest.raises(VerificationError, match="not known"):
        read_foreign(manifest(layer(f"{DOCKER}.model.file"), config=f"{DOCKER}.model.config.v0.2+json"), b"{}")


def test_no_layers() -> None:
    with pytest.raises(UsageError, match="no files"):
        read_foreign(manifest(), b"{}")


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ('{"size": 5, "typeflag": 48}', 5),
        ('{"size": 5, "typeflag": 0}', 5),
        ('{"size": 10, "typeflag": 0}', None),  # of the archive itself
        ('{"size": 5, "typeflag": 53}', None),
        ('{"size": -1, "typeflag": 48}', None),
        ('{"size": true, "typeflag": 48}', None),
        ("[]", None),
        ("", None),
    ],
)
def test_the_size_stated(facts: str, size: int | None) -> None:
    (found,) = read_foreign(manifest(layer(f"{CNCF}.weight.v1.tar", path="a", facts=facts)), b"{}").layers
    assert found.file_size == size


def test_sizes_are_compared() -> None:
    facts = '{"size": 5, "typeflag": 48}'
    (found,) = read_foreign(manifest(layer(f"{CNCF}.weight.v1.tar", path="d/a", facts=facts)), b"{}").layers
    assert found.place("a", 5) == "d/a"
    assert found.place("x/a", 5) == "x/a"
    with pytest.raises(VerificationError, match="states 5"):
        found.place("a", 6)


def test_facts_are_cut_to_what_is_harmless() -> None:
    config = {
        "descriptor": {
            "name": "n\x1b[2J", "version": "v" * 3000, "title": ["no", 5, "x\x00"], "description": "two\n lines",
            "licenses": [f"L{number}" for number in range(100)], "vendor": {"a": 1}, "family": None, "authors": "me",
        },
        "config": {"architecture": 1 << 70, "paramSize": 7, "precision": True, "quantization": "q4"},
    }  # fmt: skip
    found = read_foreign(manifest(layer(f"{CNCF}.weight.v1.raw", path="a")), json.dumps(config).encode())
    assert (found.name, found.version) == ("", "")
    assert found.metadata == {
        "title": ["no"], "description": "two lines", "license": [f"L{number}" for number in range(50)],
        "authors": "me", "parameters": 7, "quantization": "q4",
    }  # fmt: skip


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b"null", b'{"a":' * 5000])
def test_a_config_that_is_no_object(config: bytes) -> None:
    with pytest.raises(VerificationError):
        read_foreign(manifest(layer(f"{CNCF}.weight.v1.raw", path="a")), config)


def test_a_kitfile_in_an_annotation_may_be_damaged() -> None:
    notes = {"ml.kitops.modelkit.kitfile": "{"}
    with pytest.raises(VerificationError, match="kitfile"):
        read_foreign(manifest(layer(f"{CNCF}.weight.v1.raw", path="a"), annotations=notes), b"{}")


def test_labels_of_ours_are_text() -> None:
    notes = {"io.bentotool.name": "n", "io.bentotool.labels": '{"a": "b", "c": {"d": 1}, "e": "\\u001b"}'}
    found = read_foreign(manifest(layer(f"{CNCF}.weight.v1.raw", path="a"), annotations=notes), b"{}")
    assert found.labels == {"a": "b"}


WORDS = "package model parts code datasets docs path digest name version descriptor config"
KEYS = st.sampled_from(WORDS.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
LAYERS = st.sampled_from(
    [
        layer(f"{KIT}.{kind}.v1.{packing}", **notes)
        for kind in ("model", "modelpart", "code", "dataset", "docs", "config", "mcpb")
        for packing in ("tar", "tar+gzip", "raw")
        for notes in ({}, {"path": "../x"}, {"facts": "{}"}, {"title": "t"})
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, JSON, max_size=6), st.lists(LAYERS, max_size=5))
def test_any_kitfile_is_read_or_refused(document: dict[str, Any], layers: list[Descriptor]) -> None:
    try:
        found = read_foreign(kit(*layers), json.dumps(document).encode())
    except BentotoolError:
        return
    assert found.name.isprintable()
    assert json.dumps(found.metadata)
