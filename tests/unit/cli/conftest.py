"""Run the command line in this process, as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bentotool.cli.main import main


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``cli("model", "list")`` gives exit status, stdout and stderr."""

    def run(*arguments: str) -> Outcome:
        status = main(arguments)
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return run
