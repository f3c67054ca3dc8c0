"""Progress: a bar on a terminal, JSON Lines for a program, nothing in a pipe; told as often as one likes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bentotool.cli.console import Console
from bentotool.cli.options import GlobalOptions
from bentotool.cli.progress import Bar, facts_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes stderr a terminal; called by the test itself, because pytest sets stderr anew before it runs."""
    monkeypatch.setenv("TERM", "xterm")

    def make() -> Terminal:
        monkeypatch.setattr(sys, "stderr", drawn := Terminal())
        return drawn

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr("bentotool.cli.progress.time.monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 100.0 + seconds)


def _console(**options: Any) -> Console:
    return Console(GlobalOptions(**options))


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line)["progress"] for line in text.splitlines()]


@pytest.mark.parametrize("options", [{}, {"quiet": True}, {"json": True, "quiet": True}])
def test_nothing_in_a_pipe(capsys: pytest.CaptureFixture[str], options: dict[str, Any]) -> None:
    with _console(**options).progress(10, "push") as progress:
        progress.advance(10)
    assert capsys.readouterr() == ("", "")


def test_json_lines_on_stderr_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]
) -> None:
    with _console(json=True).progress(100, "push") as progress:
        progress.advance(0)
        clock(2)
        progress.advance(40)
        clock(2.1)
        progress.advance(10)
        clock(4)
        progress.advance(50)
    printed = capsys.readouterr()
    assert printed.out == ""
    first, *_, last = _lines(printed.err)
    assert first == {
        "label": "push", "unit": "bytes", "done": 40, "total": 100, "seconds": 2.0, "rate": 20.0, "seconds_left": 3.0
    }  # fmt: skip
    assert (last["done"], last["seconds_left"]) == (100, 0.0)
    assert [line["done"] for line in _lines(printed.err)] == [40, 100, 100]


def test_json_lines_need_no_total(capsys: pytest.CaptureFixture[str]) -> None:
    with _console(json=True).progress(None, "fetch") as progress:
        progress.advance(5)
    (line,) = _lines(capsys.readouterr().err)
    assert (line["done"], line["total"], line["seconds_left"]) == (5, None, None)


def test_a_total_that_becomes_known_gives_the_time_left(
    capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]
) -> None:
    with _console(json=True).progress(None, "fetch") as progress:
        progress.expect(1000)
        progress.advance(800)  # by an earlier try: it says nothing of this one's rate
        clock(2)
        progress.advance(100)
    line = _lines(capsys.readouterr().err)[0]
    assert (line["done"], line["total"], line["rate"], line["seconds_left"]) == (900, 1000, 50.0, 2.0)


def test_all_in_one_piece_tells_no_rate(capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]) -> None:
    with _console(json=True).progress(100, "fetch") as progress:
        progress.advance(100)
        clock(0.5)
    line = _lines(capsys.readouterr().err)[-1]
    assert (line["done"], line["rate"], line["seconds_left"]) == (100, None, None)


def test_a_bar_without_a_total_gets_one(open_terminal: Callable[[], Terminal], clock: Callable[[float], None]) -> None:
    open_terminal()
    with _console().progress(None, "fetch") as progress:
        assert isinstance(progress, Bar)
        progress.advance(10)
        progress.expect(100)
        clock(1)
        progress.advance(10)
        (task,) = progress.drawn.tasks
        assert (task.completed, task.total) == (20, 100)


def test_what_fails_at_once_leaves_stderr_to_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with _console(json=True).progress(10, "push") as progress:
            progress.advance(5)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    with _console(json=True).progress(10, "idle"):
        pass
    assert capsys.readouterr().err == ""


def test_it_is_shown_at_most_twenty_times_a_second(
    open_terminal: Callable[[], Terminal], clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_terminal()
    shown: list[int] = []
    monkeypatch.setattr(Bar, "show", lambda self, now: shown.append(self.done))
    with _console().progress(10_000, "copy") as progress:
        for step in range(10_000):
            clock(step / 10_000)
            progress.advance(1)
    assert 10 < len(shown) <= 21


def test_it_may_be_told_by_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    with _console(json=True).progress(8000, "copy") as progress, ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [progress.advance(1) for _ in range(1000)])
    assert _lines(capsys.readouterr().err)[-1]["done"] == 8000


def test_a_bar_is_drawn_on_stderr_and_removed(
    open_terminal: Callable[[], Terminal], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal()
    with _console().progress(2000, "push [x]\x1b[2J") as progress:
        progress.advance(1000)
    drawn = terminal.getvalue()
    assert "push [x]\\x1b[2J" in drawn
    assert "1 kB/2 kB" in drawn
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1
    assert capsys.readouterr().out == ""


def test_no_bar_for_what_was_never_told(open_terminal: Callable[[], Terminal]) -> None:
    terminal = open_terminal()
    with _console().progress(10, "idle"):
        pass
    assert terminal.getvalue() == ""


def test_one_bar_at_a_time(open_terminal: Callable[[], Terminal]) -> None:
    terminal = open_terminal()
    console = _console()
    with console.progress(None, "fetch") as outer:
        outer.advance(5)
        with console.progress(10, "import") as inner:
            inner.advance(5)
            outer.advance(5)
    drawn = terminal.getvalue()
    assert drawn.index("fetch") < drawn.index("\x1b[?25h") < drawn.index("import")
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 2


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_failure_leaves_a_clean_terminal(open_terminal: Callable[[], Terminal], failure: type[BaseException]) -> None:
    terminal = open_terminal()

    def fail() -> None:
        with _console().progress(10, "copy") as progress:
            progress.advance(5)
            raise failure

    with pytest.raises(failure):
        fail()
    drawn = terminal.getvalue()
    assert drawn.rindex("\x1b[?25l") < drawn.rindex("\x1b[?25h")
    assert drawn.endswith("\x1b[2K")


@pytest.mark.parametrize("setting", ["option", "NO_COLOR", "TERM"])
def test_plain_output_has_no_bar(
    open_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    terminal = open_terminal()
    if setting != "option":
        monkeypatch.setenv(setting, {"NO_COLOR": "1", "TERM": "dumb"}[setting])
    with _console(no_color=setting == "option").progress(10, "copy") as progress:
        progress.advance(5)
    assert terminal.getvalue() == ""


def test_results_go_to_stdout_while_a_bar_is_drawn(
    open_terminal: Callable[[], Terminal], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal()
    console = _console()
    with console.progress(10, "copy") as progress:
        progress.advance(5)
        console.line("result")
        console.note("beside")
    assert capsys.readouterr().out == "result\n"
    assert "beside" in terminal.getvalue()


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ((1_500_000, 3_000_000, "bytes", 1e6, 1.5), "1.5 MB/3 MB  1 MB/s  0:02 left"),
        ((1000, None, "bytes", None, None), "1 kB"),
        ((3, 10, "names", 2.0, 3700.0), "3/10 names  2/s  1:01:40 left"),
        ((3, None, "names", None, None), "3 names"),
    ],
)
def test_what_stands_beside_the_bar(facts: Any, text: str) -> None:
    assert facts_text(*facts) == text


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_bar_gives_way_and_not_the_facts(
    open_terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("bentotool.cli.progress.facts_text", lambda *facts: "238 MB/315 MB  384 MB/s  0:01 left")
    terminal = open_terminal()
    with _console().progress(10, "export iris:683df") as progress:
        progress.advance(5)
    assert "export iris:683df" in terminal.getvalue()
    assert "0:01 left" in terminal.getvalue()


def test_parts_have_lines_of_their_own_while_they_are_moved(
    open_terminal: Callable[[], Terminal], clock: Callable[[float], None]
) -> None:
    terminal = open_terminal()
    with _console().progress(4000, "push") as progress, progress.part("model-1.bin\x1b", 2000) as first:
        first.advance(500)
        with progress.part("quick.json", 2) as quick:
            quick.advance(2)
        clock(1)
        first.advance(500)
    drawn = terminal.getvalue()
    assert "model-1.bin\\x1b" in drawn
    assert "/2 kB" in drawn
    assert "quick.json" not in drawn


def test_of_a_part_that_broke_off_nothing_false_is_told_last(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with _console(json=True).progress(100, "push") as progress, progress.part("a.bin", 60) as part:
        part.advance(0)
        clock(2)
        part.advance(50)
        part.advance(-50)  # what did not arrive, as is found out when it breaks
    assert [line["done"] for line in _lines(capsys.readouterr().err) if "part" in line] == [50]


def test_parts_count_for_the_whole_and_are_named_in_json(
    capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]
) -> None:
    with _console(json=True).progress(100, "push") as progress:
        with progress.part("a.bin", 60) as part:
            part.advance(0)
            clock(2)
            part.advance(60)
        with progress.part("b.bin", 40) as part:
            part.advance(40)
    lines = [(line.get("part"), line["done"], line["total"]) for line in _lines(capsys.readouterr().err)]
    assert lines == [(None, 60, 100), ("a.bin", 60, 60), ("a.bin", 60, 60), (None, 100, 100)]
