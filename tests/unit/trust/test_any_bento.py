"""Whatever a Bento from elsewhere says of itself: a document that fits the schema, or one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import VerificationError
from bentotool.trust.attached import _made, is_document
from bentotool.trust.contents import Contents, ModelPart, read_packages

TEXT = st.text(max_size=12)
HEX = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
NAME = st.from_regex(r"[A-Za-z0-9][\w.-]{0,9}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TENSORS = st.lists(st.fixed_dictionaries({}, optional={"name": JSON, "dtype": JSON, "shape": JSON}), max_size=2) | JSON
MODELS = st.builds(
    ModelPart, TEXT, TEXT, HEX.map("sha256:".__add__), TEXT, TEXT, TEXT,
    st.dictionaries(st.sampled_from(["inputs", "outputs", "x"]), TENSORS), st.dictionaries(TEXT, TEXT, max_size=2),
)  # fmt: skip
PIN = st.sampled_from(["{}=={} --hash=sha256:{}\n", "{} @ https://{} --hash=sha256:{}\n"])
LOCKS = st.text(max_size=100) | st.builds(lambda form, *words: form.format(*words), PIN, NAME, TEXT, HEX)


@pytest.fixture(autouse=True)
def _libraries(require_package: Callable[[str], None]) -> None:
    for package in ("cyclonedx", "jsonschema", "spdx_tools"):
        require_package(package)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_documents_of_any_bento(
    contents: Contents, check_cyclonedx: Callable[[bytes], dict[str, Any]], data: st.DataObject
) -> None:
    bento = replace(
        contents,
        name=data.draw(TEXT),
        version=data.draw(TEXT),
        description=data.draw(TEXT),
        labels=data.draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        runtime_version=data.draw(TEXT),
        packages=read_packages(data.draw(LOCKS)),
        models=tuple(data.draw(st.lists(MODELS, max_size=2, unique_by=lambda model: model.digest))),
    )
    for form, check in (("cyclonedx", check_cyclonedx), ("spdx", json.loads)):
        with contextlib.suppress(VerificationError):
            check(_made(form, bento))


def test_what_a_format_does_not_admit_is_one_line(contents: Contents) -> None:
    with pytest.raises(VerificationError) as raised:
        _made("cyclonedx", replace(contents, name=""))
    assert raised.value.message.startswith(f"no cyclonedx SBOM can be made of @{contents.digest}: ValueError: ")
    assert len(raised.value.message.splitlines()) == 1


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_may_be_attached(data: bytes) -> None:
    for kind in ("application/vnd.cyclonedx+json", "application/spdx+json", "application/vnd.in-toto+json"):
        assert is_document(kind, "sha256:" + "0" * 64, data) in (True, False)
