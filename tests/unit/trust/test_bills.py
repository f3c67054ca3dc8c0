"""Bills of materials: they fit the published schemas, name everything, and are the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bentotool.errors import UsageError
from bentotool.trust.contents import Contents, Package, read_packages
from bentotool.trust.cyclonedx_bom import cyclonedx_json
from bentotool.trust.spdx_document import spdx_json

Check = Callable[[bytes], dict[str, Any]]


@pytest.fixture(autouse=True)
def _libraries(require_package: Callable[[str], None]) -> None:
    for package in ("cyclonedx", "jsonschema", "spdx_tools"):
        require_package(package)


def test_a_lock_is_read(lock: str) -> None:
    found = {package.name: package for package in read_packages(lock)}
    assert list(found) == ["direct", "epoch", "from-git", "many-files"]
    assert [len(package.hashes) for package in found.values()] == [1, 1, 1, 3]
    assert (found["direct"].version, found["direct"].url) == (
        "3.0+l",
        "https://files.example/a/direct-3.0+l-py3-none-any.whl",
    )
    assert found["from-git"].commit == "a" * 40
    assert sum(len(package.hashes) for package in found.values()) == lock.count("--hash=")


@pytest.mark.parametrize(
    ("package", "purl"),
    [
        (Package("a-b", "1.0"), "pkg:pypi/a-b@1.0"),
        (Package("a", "1!2.0+cpu"), "pkg:pypi/a@1%212.0%2Bcpu"),
        (Package("a", "", url="https://x.example/a b?"), "pkg:pypi/a?download_url=https://x.example/a%20b%3F"),
    ],
)
def test_package_urls_are_as_the_library_writes_them(package: Package, purl: str) -> None:
    from packageurl import PackageURL

    assert package.purl == purl
    assert PackageURL.from_string(purl).to_string() == purl


def test_cyclonedx_names_everything(contents: Contents, check_cyclonedx: Check) -> None:
    document = check_cyclonedx(cyclonedx_json(contents))
    assert (document["specVersion"], document["version"]) == ("1.6", 1)
    parts = {part["bom-ref"]: part for part in document["components"]}
    for package in contents.packages:
        part = parts[package.purl]
        assert (part["name"], part["version"], part["purl"]) == (package.name, package.version, package.purl)
        assert [each["content"] for each in part["hashes"]] == list(package.hashes)
    root = document["metadata"]["component"]
    assert (root["name"], root["version"], root["hashes"][0]["content"]) == ("svc", "7", contents.digest[7:])
    assert parts[contents.runtime_purl]["hashes"][0]["content"] == contents.runtime_digest[7:]
    everything = next(each for each in document["dependencies"] if each["ref"] == root["bom-ref"])
    assert sorted(everything["dependsOn"]) == sorted(parts)
    assert not any("dependsOn" in each for each in document["dependencies"] if each is not everything)


def test_models_are_machine_learning_models_with_a_card(contents: Contents, check_cyclonedx: Check) -> None:
    document = check_cyclonedx(cyclonedx_json(contents))
    parts = {part["bom-ref"]: part for part in document["components"]}
    model, absent = (parts[part.purl] for part in contents.models)
    assert {model["type"], absent["type"]} == {"machine-learning-model"}
    assert [model["hashes"][0]["content"], absent["hashes"][0]["content"]] == [m.digest[7:] for m in contents.models]
    assert model["modelCard"]["modelParameters"] == {
        "inputs": [{"format": "x: float32[?, n, 4]"}],
        "outputs": [{"format": "str"}],
    }
    assert {"name": "bentotool:safety", "value": "pickle"} in absent["modelCard"]["properties"]
    assert {"name": "bentotool:label:team", "value": "sea\u2028rch\U0001f600"} in model["properties"]
    files = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert files == {file.path: file.sha256[7:] for file in contents.models[0].files}


def test_spdx_names_everything(contents: Contents, check_spdx: Check) -> None:
    document = check_spdx(spdx_json(contents))
    assert (document["spdxVersion"], document["dataLicense"]) == ("SPDX-2.3", "CC0-1.0")
    parts = {part["externalRefs"][0]["referenceLocator"]: part for part in document["packages"]}
    for package in contents.packages:
        part = parts[package.purl]
        assert (part["name"], part["versionInfo"]) == (package.name, package.version)
        assert [each["checksumValue"] for each in part["checksums"]] == list(package.hashes)
    for model in contents.models:
        assert parts[model.purl]["checksums"][0]["checksumValue"] == model.digest[7:]
    assert parts[contents.purl]["checksums"][0]["checksumValue"] == contents.digest[7:]
    assert "safety class pickle" in parts[contents.models[1].purl]["comment"]
    relations = {
        (each["spdxElementId"], each["relationshipType"], each["relatedSpdxElement"])
        for each in document["relationships"]
    }
    assert ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Bento") in relations
    depended = {other for one, kind, other in relations if (one, kind) == ("SPDXRef-Bento", "DEPENDS_ON")}
    assert depended == {part["SPDXID"] for part in parts.values()} - {"SPDXRef-Bento", "SPDXRef-Runtime"}


def test_names_that_differ_in_odd_characters_stay_apart(contents: Contents, check_spdx: Check) -> None:
    packages = tuple(Package("a", version, ("1" * 64,)) for version in ("1+x", "1!x"))
    document = check_spdx(spdx_json(replace(contents, packages=packages)))
    assert len({part["SPDXID"] for part in document["packages"]}) == len(document["packages"])


def test_a_bento_of_nothing_fits_too(contents: Contents, check_cyclonedx: Check, check_spdx: Check) -> None:
    bare = replace(contents, packages=(), models=(), description="", labels={}, runtime_version="")
    check_cyclonedx(cyclonedx_json(bare))
    check_spdx(spdx_json(bare))


@pytest.mark.parametrize("make", [cyclonedx_json, spdx_json])
def test_they_state_no_time_but_the_one_that_is_set(
    contents: Contents, make: Callable[[Contents], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    first = make(contents)
    assert make(contents) == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = make(contents)
    assert b"2023-11-14T22:13:20Z" in dated
    assert dated != first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH='yesterday' is not a number"):
        make(contents)


def test_the_serial_number_is_the_bentos(contents: Contents, check_cyclonedx: Check) -> None:
    one, two = (
        check_cyclonedx(cyclonedx_json(each))["serialNumber"]
        for each in (contents, replace(contents, digest="sha256:" + "0" * 64))
    )
    assert uuid.UUID(one).version == uuid.UUID(two).version == 5
    assert one != two


def test_they_are_equal_in_any_process(tmp_path: Any) -> None:
    """Another hash seed, time zone and locale."""
    program = """
import hashlib, sys
from bentotool.trust.contents import *
from bentotool.trust.cyclonedx_bom import cyclonedx_json
from bentotool.trust.spdx_document import spdx_json
packages = tuple(Package(f"p{n}", "1", (f"{n:064x}", f"{n + 50:064x}")) for n in range(20))
models = tuple(ModelPart(f"m{n}", "1", f"sha256:{n:064x}", labels={"a": "b", "c": "d"}) for n in range(5))
facts = ("n", "1", "sha256:" + "1" * 64, "s:S", "3.12", "linux/amd64", "", {}, "", "1", "2" * 64)
bento = Contents(*facts, packages, models)
print(hashlib.sha256(cyclonedx_json(bento) + spdx_json(bento)).hexdigest())
"""
    printed = set()
    for seed, zone, locale in (("1", "UTC", "C"), ("2", "Asia/Kolkata", "de_DE.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
        environment.pop("SOURCE_DATE_EPOCH", None)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=50
        )
        assert done.returncode == 0, done.stderr
        printed.add(done.stdout)
    assert len(printed) == 1
