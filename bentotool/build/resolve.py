"""One resolution by uv: for the target, with hashes, packages of the project's own lock standing as they are.

Packages that come from no index are given to uv as files: a packed package as its wheel, and one that the project's own
lock pins as an empty wheel of that name and version, because all that it needs is pinned too. So no index is asked for
either, and what is resolved beside them has to fit them.

``[tool.uv.sources]`` of a project counts for its direct dependencies alone: uv would ask any index for a pinned package
that another one needs. So a first resolution puts an empty wheel in its place, and only a package that turns out to be
needed is asked for, as a direct dependency, of its own index.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bentotool.build.packing import PackedWheel
from bentotool.build.requirement_line import normal_name
from bentotool.build.requirements import LITESTAR_NEEDS, Requirements
from bentotool.build.target import PLATFORMS
from bentotool.build.tomlfile import parse_toml, tables_at, text_at
from bentotool.build.uvrun import run_uv, toml_text, write_settings
from bentotool.build.wheel import make_wheel
from bentotool.errors import BentotoolError

__all__ = ["resolve"]


def resolve(
    requirements: Requirements,
    python: str,
    platform: str,
    wheels: Sequence[PackedWheel] = (),
    *,
    previous: str = "",
    offline: bool = False,
    timeout: float = 600.0,
) -> tuple[list[list[str]], tuple[str, ...]]:
    """The pins, each a list of the requirement and its ``--hash=sha256:…`` options; and names that have no wheel.

    Args:
        wheels: of the packages to be packed.
        previous: an older lock, whose pins are kept where they still fit.

    Raises:
        BuildError: the requirements cannot be satisfied, or uv fails.
        RemoteError: an index could not be reached.
    """
    with tempfile.TemporaryDirectory(prefix="bentotool-lock-") as folder:
        workspace = Path(folder)
        given = {wheel.name for wheel in wheels}  # as a file: no index is asked
        given |= {pin.name for pin in requirements.pinned} - set(requirements.extended)
        pinned = set(requirements.indexes.pinned) - given
        direct = {normal_name(line) for line in requirements.lines} & pinned
        while True:
            absent = sorted(pinned - direct)
            _prepare(workspace, requirements, wheels, sorted(direct), absent, previous)
            arguments = _arguments(requirements, python, platform, offline, bool(absent))
            default = any(item.default for item in requirements.indexes.used())
            run_uv(workspace, arguments, own_default=default, offline=offline, timeout=timeout)
            blocks = _blocks((workspace / "lock.txt").read_text(encoding="utf-8"))
            needed = {normal_name(block[0]) for block in blocks} & set(absent)
            if not needed:
                built = _without_wheel(workspace, arguments, default)
                built |= {pin.name for pin in requirements.pinned if not pin.has_wheel}
                pins = _as_pinned(blocks, requirements, wheels)
                return pins, tuple(sorted(built & {normal_name(pin[0]) for pin in pins}))
            direct |= needed


def _prepare(
    folder: Path,
    requirements: Requirements,
    wheels: Sequence[PackedWheel],
    direct: Sequence[str],
    absent: Sequence[str],
    previous: str,
) -> None:
    """Write what uv reads into its working folder."""
    lines = list(requirements.lines)
    for wheel in wheels:
        extras = f"[{','.join(wheel.extras)}]" if wheel.extras else ""
        lines.append(f"{wheel.name}{extras} @ {wheel.path.absolute().as_uri()}")
    packed = {wheel.name for wheel in wheels}
    for pin in requirements.pinned:
        if pin.name in requirements.extended:
            lines.append(pin.line)
        elif pin.name not in packed:
            lines.append(f"{pin.name} @ {_stand_in(folder, pin.name, pin.version)}")
    given = packed | {pin.name for pin in requirements.pinned}
    overrides = [line for line in requirements.overrides if normal_name(line) not in given]
    overrides += [f"{name} @ {_stand_in(folder, name, '0')}" for name in absent]
    texts = {
        "requirements.in": lines,
        "constraints.txt": requirements.constraints,
        "overrides.txt": overrides,
    }
    for name, content in texts.items():
        (folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    lean = requirements.lean_litestar and "litestar" not in packed
    write_settings(folder, requirements.indexes, {"litestar": LITESTAR_NEEDS} if lean else {})
    (folder / "pinned").mkdir(exist_ok=True)
    named = [{"name": item.name, "url": item.url, "explicit": True} for item in requirements.indexes.named if item.name]
    document = {
        "project": {"name": "indexes", "version": "0", "dependencies": list(direct)},
        "tool": {"uv": {"index": named, "sources": {x: {"index": requirements.indexes.pinned[x]} for x in direct}}},
    }
    (folder / "pinned" / "pyproject.toml").write_text(toml_text(document), encoding="utf-8")
    (folder / "lock.txt").unlink(missing_ok=True)
    if previous:
        (folder / "lock.txt").write_text(previous, encoding="utf-8")


def _stand_in(folder: Path, name: str, version: str) -> str:
    """The URL of an empty wheel."""
    from packaging.utils import canonicalize_version

    stem = name.replace("-", "_")
    shown = canonicalize_version(version, strip_trailing_zero=False)
    place = folder / "stand-ins" / f"{stem}-{shown}-py3-none-any.whl"
    place.parent.mkdir(exist_ok=True)
    if not place.exists():
        place.write_bytes(make_wheel(stem, shown, {}, python=">=3"))
    return place.as_uri()


def _arguments(requirements: Requirements, python: str, platform: str, offline: bool, overridden: bool) -> list[str]:
    indexes = requirements.indexes
    output = ["--generate-hashes", "--no-header", "--no-annotate", "--no-progress", "--color", "never"]
    target = ["--python-version", python, "--python-platform", PLATFORMS[platform], "--python", sys.executable]
    files = ["requirements.in", *(["pinned/pyproject.toml"] if indexes.pinned else [])]
    arguments = ["pip", "compile", *files, *output, "--output-file", "lock.txt", *target]
    arguments += ["--constraints", "constraints.txt"] if requirements.constraints else []
    arguments += ["--override", "overrides.txt"] if overridden or requirements.overrides else []
    for link in indexes.find_links:
        arguments += ["--find-links", link]
    for name in indexes.trusted_host:
        arguments += ["--allow-insecure-host", name]
    for option, names in (("--only-binary", requirements.only_binary), ("--no-binary", requirements.no_binary)):
        for name in names:
            arguments += [option, name]
    arguments += ["--prerelease", requirements.prerelease] if requirements.prerelease else []
    arguments += ["--exclude-newer", requirements.exclude_newer] if requirements.exclude_newer else []
    return arguments + (["--no-index"] if indexes.no_index else []) + (["--offline"] if offline else [])


def _blocks(text: str) -> list[list[str]]:
    blocks: list[list[str]] = []
    for line in text.splitlines():
        content = line.strip().removesuffix("\\").strip()
        if not content or content.startswith("#"):
            continue
        if line[0] in " \t":
            blocks[-1].append(content)
        else:
            blocks.append([content])
    return blocks


def _without_wheel(folder: Path, arguments: list[str], own_default: bool) -> set[str]:
    """Packages whose files for the target are sources alone: uv's other form of a lock names the files.

    It is made from the lock without a network. Where uv keeps no cache that fails, and nothing is known.
    """
    replaced = {"requirements.in": "lock.txt", "lock.txt": "pylock.toml"}
    again = [replaced.get(item, item) for item in arguments if item not in ("pinned/pyproject.toml", "--offline")]
    try:
        run_uv(folder, [*again, "--no-deps", "--format", "pylock.toml", "--offline"], own_default=own_default)
    except BentotoolError:
        return set()
    document = parse_toml((folder / "pylock.toml").read_text(encoding="utf-8"), "pylock.toml")
    return {
        normal_name(text_at(entry, "name", ()))
        for entry in tables_at(document, "packages", ())
        if "sdist" in entry and not entry.get("wheels")
    }


def _as_pinned(blocks: list[list[str]], requirements: Requirements, wheels: Sequence[PackedWheel]) -> list[list[str]]:
    """Files of ours as the pins that they stand for, with the hashes of the project's own lock or of the wheel."""
    packed = {wheel.name: wheel for wheel in wheels}
    own = {pin.name: pin for pin in requirements.pinned}
    result = []
    for block in blocks:
        name = normal_name(block[0])
        if name in packed:
            extras = re.match(r"[\w.-]+(\[[^\]]*\])?", block[0])
            shown = f"{name}{extras[1] or ''}" if extras else name
            result.append([f"{shown}=={packed[name].version}", f"--hash={packed[name].digest}"])
        elif name in own:
            result.append([own[name].line, *(f"--hash={digest}" for digest in own[name].hashes)])
        else:
            result.append(block)
    return sorted(result, key=lambda block: normal_name(block[0]))
