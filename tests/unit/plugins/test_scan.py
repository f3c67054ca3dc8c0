from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from bentotool import plugin_scan
from bentotool.plugin_scan import FoundPlugin, scan


def dist(folder: Path, name: str, text: str | None, *, info: str = "{}-1.0.dist-info", meta: str = "METADATA") -> Path:
    path = folder / info.format(name)
    path.mkdir(parents=True)
    (path / meta).write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\nName: body\n", encoding="utf-8")
    if text is not None:
        (path / "entry_points.txt").write_text(text, encoding="utf-8")
    return path


def by_metadata(path: list[str], group: str) -> set[FoundPlugin]:
    seen: set[str] = set()
    found = set()
    for item in metadata.distributions(path=path):
        name = item.metadata["Name"] or ""
        if (key := name.lower().replace("-", "_").replace(".", "_")) in seen:
            continue
        seen.add(key)
        found |= {FoundPlugin(e.name, e.value, name, item.version) for e in item.entry_points if e.group == group}
    return found


@pytest.mark.parametrize("group", ["bentotool", "console_scripts", "pytest11"])
def test_equals_importlib_metadata_in_this_environment(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editable installs of this checkout and its plugins included, where the environment has them."""
    monkeypatch.setattr(plugin_scan, "GROUP", group)
    found = scan()
    assert set(found) == by_metadata(sys.path, group)
    names = {(point.name, point.value.replace(" ", "")) for point in metadata.entry_points(group=group)}
    assert {(plugin.name, plugin.target) for plugin in found} == names


@pytest.mark.parametrize(
    "text",
    [
        "[bentotool]\na = x.y\n",
        "[console_scripts]\nq = w:e\n\n[bentotool]\n# comment\na=x.y:z\nb = x.y:z [extra]\n",
        "[bentotool]\r\na = x.y\r\n[other]\r\nb = c\r\n",
        "[other]\nbentotool = x\n",
        "[bentotool_other]\na = b\n",
        "",
        None,
    ],
)
def test_equals_importlib_metadata_on_forms(tmp_path: Path, text: str | None) -> None:
    dist(tmp_path, "My.Dist", text)
    found = {(p.name, p.target.partition("[")[0], p.distribution, p.version) for p in scan([str(tmp_path)])}
    expected = by_metadata([str(tmp_path)], "bentotool")
    assert found == {(p.name, p.target.partition("[")[0].strip(), p.distribution, p.version) for p in expected}


def test_metadata_switch_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist(tmp_path, "one", "[bentotool]\na = x.y\n")
    dist(tmp_path, "two", "[bentotool]\nb = x.z:q\n")
    plain = scan([str(tmp_path)])
    monkeypatch.setenv("BENTOTOOL_PLUGIN_SCAN", "metadata")
    assert scan([str(tmp_path)]) == plain
    assert [plugin.name for plugin in plain] == ["a", "b"]


def test_the_first_copy_of_a_distribution_counts(tmp_path: Path) -> None:
    dist(tmp_path / "first", "my-dist", "[bentotool]\na = first\n", info="my_dist-1.0.dist-info")
    dist(tmp_path / "second", "My.Dist", "[bentotool]\na = second\n", info="My.Dist-2.0.dist-info")
    assert [p.target for p in scan([str(tmp_path / "first"), str(tmp_path / "second")])] == ["first"]
    assert [p.target for p in scan([str(tmp_path / "second"), str(tmp_path / "first")])] == ["second"]


def test_eggs(tmp_path: Path) -> None:
    dist(tmp_path, "dev", "[bentotool]\na = x\n", info="{}.egg-info", meta="PKG-INFO")
    egg = tmp_path / "old-1.0.egg"
    dist(egg, "old", "[bentotool]\nb = y\n", info="EGG-INFO", meta="PKG-INFO")
    found = scan([str(tmp_path), str(egg)])
    assert [(p.name, p.distribution, p.version) for p in found] == [("a", "dev", "1.0"), ("b", "old", "1.0")]


def test_odd_import_paths_are_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    archive.write_bytes(b"PK\x05\x06" + bytes(18))
    damaged = dist(tmp_path, "damaged", None)
    (damaged / "entry_points.txt").write_bytes(b"[bentotool]\n\xff\xfe = x\nno equals sign\n")
    (damaged / "METADATA").unlink()
    found = scan([str(archive), str(tmp_path / "gone"), "nul\0byte", str(tmp_path)])
    assert [(p.distribution, p.version) for p in found] == [("damaged", "1.0")]
