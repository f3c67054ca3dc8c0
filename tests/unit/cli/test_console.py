"""Results as text, tables and JSON; notes and progress beside them."""

from __future__ import annotations

import io
import json
import sys

import pytest

from bentotool.cli.console import Console
from bentotool.cli.options import GlobalOptions

ROWS = [("iris:1", 645, None), ("a-very-long-name-" + "x" * 120 + ":2", 12, "sha256:" + "0" * 64)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _console(**options: object) -> Console:
    return Console(GlobalOptions(**options))


def test_a_table_in_a_pipe_is_aligned_and_never_cut(capsys) -> None:
    _console().table(("tag", "size", "digest"), ROWS)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["TAG", "SIZE", "DIGEST"]
    assert first.split() == ["iris:1", "645"]
    assert second.split() == [str(cell) for cell in ROWS[1]]
    assert head.index("SIZE") == first.index("645") == second.index("12")


def test_a_table_in_a_pipe_does_not_import_rich(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.table", None)
    _console().table(("tag",), [("iris",)])
    assert "iris" in capsys.readouterr().out


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_color_is_off_when_asked(monkeypatch, variable: str, value: str) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.delenv("TERM", raising=False)
    assert _console().color
    assert not _console(no_color=True).color
    monkeypatch.setenv(variable, value)
    assert not _console().color


def test_a_table_on_a_terminal_keeps_every_character(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    _console(no_color=True).table(("tag", "size"), [(ROWS[1][0], "[bold]")])
    drawn = terminal.getvalue()
    assert "\x1b[3" not in drawn
    assert "[bold]" in drawn
    assert "".join(drawn.split()).count("x") == 120


def test_json_is_one_document_and_the_rest_is_silent(capsys) -> None:
    console = _console(json=True)
    console.line("text")
    console.table(("a",), [(1,)])
    console.result([{"name": "modèle", "size": 1}], "text")
    assert json.loads(capsys.readouterr().out) == [{"name": "modèle", "size": 1}]


def test_json_survives_any_encoding_and_lone_surrogates(capsys) -> None:
    _console(json=True).result({"name": "→\ud800"}, "")
    assert capsys.readouterr().out.isascii()


def test_human_form(capsys) -> None:
    console = _console()
    console.result({"x": 1}, "iris:1")
    console.result({"x": 1}, lambda: console.fields({"tag": "iris:1", "digest": "d", "none": None}))
    assert capsys.readouterr().out == "iris:1\ntag:    iris:1\ndigest: d\n"


def test_notes_go_to_stderr_unless_quiet(capsys) -> None:
    _console().note("hello")
    _console(quiet=True).note("unheard")
    _console().detail("unheard")
    _console(verbose=1).detail("more")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\nmore\n")


def test_foreign_text_cannot_drive_the_terminal(capsys) -> None:
    _console().table(("name",), [("a\x1b[2J\nb",)])
    _console().line("\x1b[31m")
    assert "\x1b" not in capsys.readouterr().out


def test_a_digest_is_whole_in_a_pipe_and_short_on_a_terminal(monkeypatch, capsys) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    assert _console().digest(digest) == digest
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert _console().digest(digest) == "0123456789ab"


@pytest.mark.parametrize("columns", ["10", "200"])
@pytest.mark.parametrize("plain", [True, False])
def test_a_table_on_a_terminal_never_breaks_a_word(monkeypatch, columns: str, plain: bool) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    _console(no_color=plain).table(("tag", "size"), [(ROWS[1][0], "12 B")])
    drawn = terminal.getvalue()
    assert ROWS[1][0] in drawn
    assert "TAG" in drawn
    assert ("\x1b" in drawn) == (columns == "200" and not plain)


def test_a_long_list_is_one_document_with_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    document = [{"name": f"m{number}", "size": number} for number in range(1000)]
    Console(GlobalOptions(json=True)).result(document, "text")
    printed = capsys.readouterr().out
    assert json.loads(printed) == document
    assert printed.count("\n") == 1002
