"""What a command prints: one JSON document, or text that rich draws on a terminal and that stays plain in a pipe.

With :mod:`bentotool.cli.progress` the only module that imports rich, and only when it draws on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from bentotool.cli.progress import Bar, JsonLines, Progress, Silent

if TYPE_CHECKING:
    from bentotool.cli.options import GlobalOptions

__all__ = ["Console", "Progress", "printable"]

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09,)}
_TURNING = (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL |= {code: f"\\u{code:04x}" for code in _TURNING}  # they end lines, or show text in another order than it has
_LONG = 200
_RED, _BOLD, _RESET = "\x1b[31m", "\x1b[1m", "\x1b[0m"


def printable(value: object) -> str:
    """Text for one line of a terminal: control characters of foreign data are escaped, so they cannot drive it."""
    return str(value).translate(_CONTROL)


def _json_text(document: object) -> str:
    """Indented for people; a long list has an object on each line, which takes a tenth of the time."""
    if isinstance(document, list) and len(document) > _LONG:
        return "[\n" + ",\n".join(json.dumps(item, default=str) for item in document) + "\n]"
    return json.dumps(document, indent=2, default=str)


class Console:
    """Prints results to stdout and everything else to stderr.

    Args:
        options: the global options of this invocation (read when something is printed).
    """

    def __init__(self, options: GlobalOptions) -> None:
        self._options = options
        self._bar: Bar | None = None

    @property
    def color(self) -> bool:
        """Whether stdout is a terminal that may be coloured."""
        return self._fancy(sys.stdout) and not self._plain()

    def _plain(self) -> bool:
        return self._options.no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"

    def _fancy(self, stream: TextIO) -> bool:
        return not self._options.json and stream.isatty()

    def result(self, document: object, human: Callable[[], None] | str) -> None:
        """The result of the command.

        Args:
            document: what ``--json`` prints; JSON-able.
            human: what a person reads: a text, or a function that prints with this console.
        """
        if self._options.json:
            # ASCII, because a pipe's encoding may not hold every character (Windows) and JSON can escape it
            sys.stdout.write(_json_text(document) + "\n")
        elif isinstance(human, str):
            self.line(human)
        else:
            human()

    def line(self, text: str = "") -> None:
        """One line (or several) of the result for a person; nothing with ``--json``."""
        if not self._options.json:
            sys.stdout.write("\n".join(printable(part) for part in text.split("\n")) + "\n")

    def fields(self, pairs: Mapping[str, object]) -> None:
        """Names and values, one pair a line, values aligned and never cut."""
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            if value is not None and value != "":
                self.line(f"{name + ':':<{width + 1}} {printable(value)}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under headings: drawn by rich on a terminal wide enough, else space-aligned; never cut."""
        if self._options.json:
            return
        heads = [column.upper() for column in columns]
        cells = [[printable("" if cell is None else cell).replace("\t", " ") for cell in row] for row in rows]
        if self.color and self._rich_table(heads, cells):
            return
        lines = [heads, *cells]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            sys.stdout.write(padded.rstrip() + "\n")

    def digest(self, digest: str) -> str:
        """A digest for a table: whole in a pipe, where data is never cut; twelve digits on a terminal."""
        return digest.removeprefix("sha256:")[:12] if self._fancy(sys.stdout) else digest

    def _rich_table(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> bool:
        """Whether the table fits the terminal and was drawn; one that does not fit would break inside words."""
        from rich import box
        from rich.cells import cell_len
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        console = RichConsole(file=sys.stdout, highlight=False)
        between = 3  # a space, the divider and a space
        widths = (max(cell_len(text) for text in column) for column in zip(columns, *cells, strict=True))
        if sum(widths) + between * (len(columns) - 1) > console.width:
            return False
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(column, no_wrap=True)
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return True

    def note(self, text: str) -> None:
        """Something beside the result, on stderr; ``-q`` hides it, ``--json`` makes it an object on a line."""
        if self._options.json and not self._options.quiet:
            sys.stderr.write(json.dumps({"note": text}) + "\n")
        elif not self._options.quiet:
            sys.stderr.write("\n".join(printable(part) for part in text.split("\n")) + "\n")

    def detail(self, text: str) -> None:
        """A note for ``-v`` only."""
        if self._options.verbose:
            self.note(text)

    def error_text(self, message: str, hint: str | None) -> str:
        """The lines of a failure, coloured where stderr is a terminal."""
        colored = self._fancy(sys.stderr) and not self._plain()
        word = f"{_BOLD}{_RED}error:{_RESET}" if colored else "error:"
        lines = [f"{word} {message}"]
        if hint:
            lines.append("hint: " + "\n      ".join(printable(part) for part in hint.split("\n")))
        return "\n".join(lines) + "\n"

    @contextmanager
    def progress(self, total: int | None, label: str, *, unit: str = "bytes") -> Iterator[Progress]:
        """Show how far something is: a bar on a terminal, JSON Lines on stderr with ``--json``, else nothing.

        One bar is drawn at a time: the last that anything was told to.

        Args:
            total: the final amount, ``None`` when it is not known.
            label: what is being done.
            unit: ``"bytes"``, or a noun for the things counted.
        """
        if self._options.quiet:
            yield Silent()
        elif self._options.json:
            lines = JsonLines(label, total, unit)
            yield lines
            lines.finish()
        elif not self._fancy(sys.stderr) or self._plain():  # a bar is drawn with escapes
            yield Silent()
        else:
            bar = Bar(printable(label), total, unit, lambda: self._only(bar))
            try:
                yield bar
            finally:
                bar.close()

    def _only(self, bar: Bar) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = bar
