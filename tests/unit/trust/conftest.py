"""A Bento's contents with everything that may be in them, and what reads documents as others do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.models.manifest import ModelFile
from bentotool.trust.contents import Contents, ModelPart, read_packages


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


LOCK = f"""\
# bento.lock, format 1: made by `bentotool build`, not to be edited
# inputs: {digest("inputs")}
# python: 3.12
# platform: linux/amd64
# commit: from-git {"a" * 40}
direct[x,y] @ https://files.example/a/direct-3.0+l-py3-none-any.whl?token=s3cret ; python_version > '3' \\
    --hash={digest("direct")}
from-git==2.0 \\
    --hash={digest("from-git")}
Many_Files==1.10+cpu \\
    --hash={digest("many 1")} \\
    --hash={digest("many 2")} \\
    --hash={digest("many 3")}
epoch==1!2.0 \\
    --hash={digest("many 1")}
"""


@pytest.fixture
def lock() -> str:
    return LOCK


@pytest.fixture
def contents() -> Contents:
    model = ModelPart(
        "iris",
        "1",
        digest("model"),
        "onnx",
        "onnx",
        "data",
        {"inputs": [{"name": "x", "dtype": "float32", "shape": [None, "n", 4]}], "outputs": [{"dtype": "str"}]},
        {"team": "sea\u2028rch\U0001f600"},
        (ModelFile("model.onnx", 3, digest("weights")), ModelFile("sub/ä b.txt", 0, digest(""))),
    )
    absent = ModelPart("iris", "2", digest("another model"), safety="pickle")
    return Contents(
        "svc",
        "7",
        digest("bento"),
        "service:S",
        "3.12",
        "linux/amd64",
        "Grüße <b>\nline two",
        {"a": "b", "empty": ""},
        digest(LOCK),
        "0.1.0",
        digest("runtime"),
        read_packages(LOCK),
        (model, absent),
    )


@pytest.fixture
def check_cyclonedx() -> Callable[[bytes], dict[str, Any]]:
    """Reads a document after its library has found it to fit the published schema, strictly."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    def check(data: bytes) -> dict[str, Any]:
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode()) is None
        found: dict[str, Any] = json.loads(data)
        return found

    return check


@pytest.fixture
def check_spdx(tmp_path: Path) -> Callable[[bytes], dict[str, Any]]:
    """Reads a document after its library has parsed it and found no fault with it."""
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    def check(data: bytes) -> dict[str, Any]:
        path = tmp_path / "document.spdx.json"
        path.write_bytes(data)
        assert validate_full_spdx_document(parse_file(str(path)), "SPDX-2.3") == []
        found: dict[str, Any] = json.loads(data)
        return found

    return check
