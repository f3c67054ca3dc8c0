"""The contract kit for sources: one that is right passes, and each way of being wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bentotool.testing import ContractError, check_source

SOURCE = """
import hashlib, threading
from bentotool.errors import UnsafeError, UsageError, VerificationError

CONTENT = b"hello"

class Greeting:
    def fetch(self, request):
        path = request.folder / "hello.txtmodel"
        {limit}
        path.write_bytes(CONTENT)
        {checksum}
        request.advance({advance})
        return {answer}

@hookimpl
def bentotool_sources():
    return [SourceDecl("greeting", f"{{__name__}}:Greeting", "Greetings", schemes=("greeting",))]
"""
RIGHT = {
    "limit": "if len(CONTENT) > request.max_bytes: raise UnsafeError('too large')",
    "checksum": "if request.checksum not in (None, 'sha256:' + hashlib.sha256(CONTENT).hexdigest()): "
    "raise VerificationError('another checksum')",
    "advance": "len(CONTENT)",
    "answer": "SourceModel((SourceFile(path, path.name),), 'greeting')",
}


def check(make: Any, scratch: Path, **changed: str) -> None:
    make.add("greeting", SOURCE.format(**{**RIGHT, **changed}))
    check_source("greeting", "greeting://hello", scratch=scratch / "scratch")


@pytest.mark.parametrize("changed", [{}, {"checksum": "if request.checksum: raise UsageError('takes no checksum')"}])
def test_a_source_that_keeps_the_contract(make: Any, tmp_path: Path, changed: dict[str, str]) -> None:
    check(make, tmp_path, **changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"limit": "pass"}, "more than max_bytes is taken"),
        ({"limit": "path.write_bytes(CONTENT)\n        " + RIGHT["limit"]}, "after it has fetched it"),
        ({"limit": RIGHT["limit"].replace("too large", "too\\nlarge")}, "several lines"),
        ({"checksum": "pass"}, "another checksum is taken"),
        ({"checksum": "if request.checksum: raise VerificationError('no')"}, "refuses the right checksum"),
        ({"advance": "-1"}, "no number of bytes"),
        ({"answer": "path"}, "not a SourceModel"),
        ({"answer": "SourceModel((), 'greeting')"}, "no files"),
        ({"answer": "SourceModel((SourceFile(path, '../x'),), 'greeting')"}, "not portable"),
        ({"answer": "SourceModel((SourceFile(path.parent, 'x'),), 'greeting')"}, "no plain file"),
        ({"answer": "SourceModel((SourceFile(path, 'x'), SourceFile(path, 'X')), 'greeting')"}, "not portable"),
    ],
)
def test_each_breach_is_named(make: Any, tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        check(make, tmp_path, **changed)


def test_a_source_that_is_not_declared(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no source 'absent'"):
        check_source("absent", "absent://x", scratch=tmp_path)
