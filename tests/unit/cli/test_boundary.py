"""Every failure is one line, a hint and the right status; secrets and locals never show."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bentotool import errors
from bentotool.cli.boundary import run_guarded
from bentotool.cli.options import GlobalOptions
from bentotool.cli.state import State


def _failing(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        password = "hunter2"
        raise error if password else SystemExit

    return action


def _run(error: BaseException, capsys: pytest.CaptureFixture[str], **options: object) -> tuple[int, str]:
    status = run_guarded(_failing(error), State(GlobalOptions(**options)))
    printed = capsys.readouterr()
    assert printed.out == ""
    return status, printed.err


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.BentotoolError, 1),
        (errors.UsageError, 2),
        (errors.ConfigError, 2),
        (errors.NotFoundError, 3),
        (errors.VerificationError, 4),
        (errors.RemoteError, 5),
        (errors.AuthenticationError, 5),
        (errors.UnsafeError, 6),
    ],
)
def test_exit_status_and_text(kind: type[errors.BentotoolError], status: int, capsys) -> None:
    assert _run(kind("no iris", hint="bentotool list"), capsys) == (status, "error: no iris\nhint: bentotool list\n")


def test_json_form(capsys) -> None:
    status, err = _run(errors.NotFoundError("no iris", hint="look", details={"name": "iris"}), capsys, json=True)
    assert status == 3
    assert json.loads(err) == {"error": {"code": "not_found", "message": "no iris", "hint": "look", "name": "iris"}}


def test_an_interrupt_is_130_and_one_word(capsys) -> None:
    assert _run(KeyboardInterrupt(), capsys) == (130, "interrupted\n")


def test_an_unexpected_failure_is_one_line_and_asks_for_a_report(capsys) -> None:
    status, err = _run(ValueError("boom\nsecond line"), capsys)
    assert status == 1
    assert err.splitlines()[0] == "error: unexpected failure: ValueError: boom"
    assert "report" in err
    assert "Traceback" not in err


def test_verbose_shows_the_traceback_without_locals(capsys) -> None:
    _, err = _run(ValueError("boom"), capsys, verbose=1)
    assert "Traceback" in err
    assert "in action" in err
    assert "hunter2" not in err


def test_a_known_failure_shows_its_traceback_at_the_second_v_only(capsys) -> None:
    assert "Traceback" not in _run(errors.BuildError("no"), capsys, verbose=1)[1]
    assert "Traceback" in _run(errors.BuildError("no"), capsys, verbose=2)[1]


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("kind", [ValueError, errors.RemoteError])
def test_credentials_in_an_address_are_not_shown(kind: type[Exception], as_json: bool, capsys) -> None:
    _, err = _run(kind("GET https://me:hunter2@example.org/v2/ failed"), capsys, json=as_json, verbose=2)
    assert "hunter2@" not in err
    assert "https://***@example.org" in err


def test_a_system_failure_names_the_file(capsys) -> None:
    error = OSError(errno.EACCES, "Permission denied", "/store/x")
    assert _run(error, capsys) == (1, "error: the system refused '/store/x': permission denied\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that somebody works in")
def test_a_working_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    code = "import os, sys; os.rmdir(os.getcwd()); from bentotool.cli.main import main; sys.exit(main(['build']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: the working folder is gone")


def test_a_full_disk_names_the_folder_and_what_helps(capsys) -> None:
    status, err = _run(OSError(errno.ENOSPC, "No space left on device", "/data/p"), capsys)
    assert status == 1
    assert err.startswith("error: no space left on the disk that holds /data/p\nhint: free some space")


def test_control_characters_of_foreign_data_cannot_drive_the_terminal(capsys) -> None:
    _, err = _run(errors.NotFoundError("no \x1b[2Jmodel\nhere", hint="\x1b]0;x\x07"), capsys)
    assert err == "error: no \\x1b[2Jmodel\\x0ahere\nhint: \\x1b]0;x\\x07\n"


def test_a_reader_that_left_is_no_failure_to_speak_of() -> None:
    done = subprocess.run([sys.executable, "-c", _CLOSED_PIPE], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == ""


_CLOSED_PIPE = """
import os, sys
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
from bentotool.cli.main import main
sys.exit(main(["completion", "bash"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="a console event, not a signal, on Windows")
def test_ctrl_c_of_a_real_process() -> None:
    code = "import os, signal, sys\nfrom bentotool.cli.boundary import run_guarded\n" + _SELF_INTERRUPT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


_SELF_INTERRUPT = f"""
from bentotool.cli.options import GlobalOptions
from bentotool.cli.state import State
def work():
    os.kill(os.getpid(), {int(signal.SIGINT)})
    sys.stdin.read()
sys.exit(run_guarded(work, State(GlobalOptions())))
"""


_TOLD_TO_END = """
import os, signal, sys, time
from bentotool.__main__ import run
import bentotool.cli.main as main
def work(arguments, options, state):
    for number in {numbers}:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            if {prompt}:
                import typer
                raise typer.Abort() from None  # as a prompt does
            raise
    {after}
main._dispatch = work
sys.argv = ["bentotool", *{arguments!r}]
run()
"""


@pytest.mark.skipif(os.name == "nt", reason="there a process is ended without a word")
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_a_request_to_end(name: str, status: int, arguments: list[str], prompt: bool) -> None:
    code = _TOLD_TO_END.format(numbers=f"[signal.{name}]", after="time.sleep(60)", prompt=prompt, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    if "--json" in arguments:
        assert json.loads(done.stderr) == {"error": {"code": "terminated", "message": "terminated", "hint": None}}
    else:
        assert done.stderr == "terminated\n"


@pytest.mark.skipif(os.name == "nt", reason="there a process is ended without a word")
def test_a_request_to_end_that_comes_twice_does_not_break_the_cleaning() -> None:
    """As from ``timeout``, which tells the program and then its whole group."""
    after = "pass"
    code = _TOLD_TO_END.format(numbers="[signal.SIGTERM]", after=after, prompt=False, arguments=["list"])
    again = "            os.kill(os.getpid(), signal.SIGTERM); print('cleaned')\n            raise\n"
    code = code.replace("            raise\n", again)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleaned\n", "terminated\n")


@pytest.mark.skipif(os.name == "nt", reason="there a process is ended without a word")
def test_a_signal_that_is_to_be_ignored_is() -> None:
    """As with nohup."""
    code = _TOLD_TO_END.format(numbers="[signal.SIGHUP]", after="print('went on')", prompt=False, arguments=["list"])
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


@pytest.mark.skipif(os.name == "nt", reason="a console event, not a signal, on Windows")
@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_while_modules_are_imported(number: int, status: int, word: str) -> None:
    code = f"""
import os, sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "typer":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Interrupt())
from bentotool.__main__ import run
run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"{word}\n")


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize("closing", [">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("arguments", "status"), [("--version", 0), ("list --json", 0), ("frobnicate", 2)])
def test_a_closed_stream_is_no_failure(closing: str, arguments: str, status: int) -> None:
    script = f'"$0" -m bentotool {arguments} {closing}'
    done = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_a_character_the_terminal_lacks_is_escaped() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "bentotool", "modèle→"], capture_output=True, env=environment, timeout=30, check=False
    )
    assert done.returncode == 2
    assert b"mod" in done.stderr
    assert b"Traceback" not in done.stderr
