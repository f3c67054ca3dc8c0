"""What a server is told in numbers: refused in one line wherever it stands, before anything is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentotool.errors import UsageError
from bentotool.runtime import bounds
from bentotool.runtime.bounds import LONGEST_S, check_parts, check_workers, most_workers
from bentotool.runtime.options import read_options
from bentotool.runtime.parts import Part
from bentotool.runtime.starting import start

LIMIT = 60
NONE = ("nan", "inf", "-inf", "1e400", "-1", str(LONGEST_S + 1))


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", *(f"BENTOTOOL_{name}" for name in ("HOST", "PORT", "WORKERS", "GRACE", "DRAIN_DELAY"))):
        monkeypatch.delenv(name, raising=False)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of wrong usage."""
    assert start(words) == 2
    printed = capsys.readouterr()
    line, *hints = printed.err.splitlines()
    assert (printed.out, line[:7], [hint[:6] for hint in hints]) == ("", "error: ", ["hint: "] * len(hints))
    assert len(hints) < 2
    return line.removeprefix("error: ")


@pytest.mark.parametrize("seconds", NONE)
@pytest.mark.parametrize("option", ["--grace", "--drain-delay"])
def test_seconds_that_are_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, seconds: str
) -> None:
    assert refused(capsys, f"{option}={seconds}").startswith(f"{option} ")
    variable = f"BENTOTOOL_{option[2:].upper().replace('-', '_')}"
    monkeypatch.setenv(variable, seconds)
    assert refused(capsys).startswith(f"{variable} ")
    assert read_options([f"{option}=0.5"]), "the command line stands above it"


def test_what_is_no_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(capsys, "--grace", "long") == "--grace 'long': not a number of seconds"
    assert refused(capsys, "--port", "70000") == "port 70000 is not between 0 and 65535"
    assert refused(capsys, "--workers", "nan") == "--workers 'nan': not a whole number"
    assert refused(capsys, "--workers", "0") == "--workers 0: at least 1 is needed"
    assert refused(capsys, "--log-format", "xml") == "--log-format 'xml': neither text nor json"
    assert refused(capsys, "--bogus") == "unrecognized arguments: --bogus"
    monkeypatch.setenv("PORT", "web")
    assert refused(capsys) == "PORT 'web': not a whole number"
    assert start(["--log-format", "json", "--port", "1", "--workers", "-1"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


def test_the_environment_stands_below_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "3001", "BENTOTOOL_GRACE": "7", "BENTOTOOL_WORKERS": "2"}.items():
        monkeypatch.setenv(name, value)
    options = read_options(["--grace", "8"])
    assert (options.port, options.grace, options.workers, options.host) == (3001, 8.0, 2, "127.0.0.1")
    monkeypatch.setenv("BENTOTOOL_PORT", "tcp://10.0.0.1:80")  # Kubernetes' own, of a Service with our name
    assert read_options([]).port == 3001


def test_more_workers_than_a_machine_should_have(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds.os, "cpu_count", lambda: 8)
    assert most_workers() == 128
    assert check_workers(128, "--workers") == 128
    assert "--workers 129: more than the 128 that this machine may have" in refused(capsys, "--workers", "129")
    monkeypatch.setenv("BENTOTOOL_WORKERS", "100000")
    assert "BENTOTOOL_WORKERS 100000" in refused(capsys)
    parts = [Part("Whole", 129), Part("Inner", 2)]
    with pytest.raises(UsageError, match="workers of Whole: 129"):
        check_parts(parts, None)
    assert [part.workers for part in check_parts(parts, 3)] == [3, 2]
    with pytest.raises(UsageError, match="workers of Inner: 129"):
        check_parts([Part("Whole"), Part("Inner", 129)], 3)
    monkeypatch.setattr(bounds.os, "cpu_count", lambda: None)
    assert most_workers() == 64


@pytest.mark.parametrize("options", [(), ("--plan",)])
def test_a_service_that_declares_too_many_is_not_served(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "service.py").write_text(
        "import pathlib, bentotool\npathlib.Path(__file__).with_name('imported').open('a').write('x')\n"
        f"@bentotool.service(workers={most_workers() + 1})\nclass Many:\n    @bentotool.api\n"
        "    def one(self) -> int:\n        return 1\n"
    )
    command = [sys.executable, "-m", "bentotool.runtime", str(tmp_path), "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: workers of Many: {most_workers() + 1}: more than the ")
    assert (tmp_path / "imported").read_text() == "x", "nobody but the first worker"


@pytest.mark.parametrize("words", [("--grace", "nan"), ("--drain-delay=-1",), ("--workers", str(10**6))])
@pytest.mark.parametrize("command", [("serve",), ("model", "serve", "iris")])
def test_the_tool_says_it_too(words: tuple[str, ...], command: tuple[str, ...]) -> None:
    program = [sys.executable, "-m", "bentotool", *command, *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT, check=False, env=os.environ.copy())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {words[0].partition('=')[0]} ")
