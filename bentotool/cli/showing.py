"""``bentotool show`` of a Bento in the store, as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bentotool.cli.formats import count, human_size, human_time, shown_argument
from bentotool.cli.remote import show_referrers

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.build.contents import Contents
    from bentotool.cli.state import State

__all__ = ["show_contents"]


def show_contents(
    state: State,
    bento: StoredBento,
    contents: Contents,
    attached: Sequence[Mapping[str, Any]],
    *,
    files: bool,
    packages: bool,
) -> None:
    """Print a Bento; its files and packages one by one where asked, else their number."""
    short = state.console.digest
    size = human_size(sum(file.size for file in contents.files))
    state.console.fields(
        {
            "tag": bento.tag,
            "digest": bento.digest,
            "size": human_size(bento.size),
            "created": human_time(bento.created),
            "service": bento.service,
            "python": f"{bento.python}, {bento.platform}",
            "description": (bento.description or "").partition("\n")[0],
            "labels": ", ".join(f"{key}={value}" for key, value in bento.labels.items()),
            "files": f"{count(len(contents.files), 'file')}, {size}",
            "packages": count(len(contents.packages), "package"),
            "lock inputs": contents.lock.get("inputs", ""),
            "runtime": contents.runtime.get("version", ""),
            "image": ", ".join(f"{key}={_value(value)}" for key, value in contents.image.items()),
        }
    )
    _table(
        state,
        ("api", "input", "output", ""),
        [(f"{r.method} {r.route}", r.input, r.output, ", ".join(r.traits)) for r in contents.routes],
    )
    _table(state, ("argument", "type", "value"), [(a["name"], a["type"], shown_argument(a)) for a in bento.arguments])
    rows = [(env.get("name"), env.get("value") or "given when it runs", env.get("stage")) for env in contents.envs]
    _table(state, ("variable", "value", "stage"), rows)
    _table(
        state,
        ("model", "resolved to", "digest"),
        [(model.alias, f"{model.name}:{model.version}", short(model.digest)) for model in bento.models],
    )
    show_referrers(state, attached)
    if files:
        _table(
            state, ("file", "size", "digest"), [(f.path, human_size(f.size), short(f.digest)) for f in contents.files]
        )
    if packages:
        _table(state, ("package", "version"), [(package.name, package.version) for package in contents.packages])


def _table(state: State, columns: tuple[str, ...], rows: Iterable[Sequence[object]]) -> None:
    lines = list(rows)
    if not lines:
        return
    if not any(line[-1] for line in lines):
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    state.console.line()
    state.console.table(columns, lines)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
