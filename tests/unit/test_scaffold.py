"""Templates from a wheel and from a checkout; a project never overwrites anything."""

from __future__ import annotations

import builtins
import errno
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bentotool.errors import ConflictError, NotFoundError, PluginError, UsageError
from bentotool.scaffold import Template, available_templates, create_project, template_root


@dataclass(frozen=True)
class Declared:
    name: str
    summary: str
    package: str
    path: str


def _template(folder: Path, name: str = "quickstart") -> Template:
    path = folder / name
    (path / "sub").mkdir(parents=True)
    (path / "README.md").write_text("# Title\n\nOne line.\n")
    (path / "sub" / "a.py").write_text("a = 1\n")
    (path / "__pycache__").mkdir()
    (path / "__pycache__" / "a.pyc").write_bytes(b"x")
    return Template(name, "One line.", path)


def test_a_wheel_carries_templates_inside_the_package(tmp_path: Path) -> None:
    _template(tmp_path / "bentotool" / "_templates")
    _template(tmp_path / "templates")
    assert template_root(tmp_path / "bentotool") == tmp_path / "bentotool" / "_templates"


def test_an_editable_install_uses_the_checkout(tmp_path: Path) -> None:
    _template(tmp_path / "templates")
    assert template_root(tmp_path / "bentotool") == tmp_path / "templates"


def test_a_broken_installation_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no templates"):
        template_root(tmp_path / "bentotool")


def test_this_installation_has_the_quickstart() -> None:
    template = available_templates()["quickstart"]
    names = {path.name for path in template.path.iterdir()}
    assert {"service.py", "bentofile.yaml", "iris.onnx", "train.py", "README.md", "tests"} <= names
    assert (template.path / "iris.onnx").stat().st_size < 100_000
    assert template.summary


def test_a_plugin_adds_a_template_and_replaces_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_templates"
    _template(package / "kinds", "mine")
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    declared = {
        "mine": Declared("mine", "Mine", "my_templates", "kinds/mine"),
        "quickstart": Declared("quickstart", "Taken", "my_templates", "kinds/mine"),
    }
    found = available_templates(declared)
    assert found["mine"] == Template("mine", "Mine", package / "kinds" / "mine")
    assert found["quickstart"].summary != "Taken"
    assert "my_templates" not in sys.modules


@pytest.mark.parametrize(("package", "path"), [("absent_package", "x"), ("json", "no-such-folder")])
def test_a_plugin_template_that_is_not_there(package: str, path: str) -> None:
    with pytest.raises(PluginError, match="has no folder"):
        available_templates({"x": Declared("x", "X", package, path)})


def test_a_project_is_a_copy_without_caches(tmp_path: Path) -> None:
    files = create_project(_template(tmp_path), tmp_path / "new" / "project")
    assert [file.as_posix() for file in files] == ["README.md", "sub/a.py"]
    assert (tmp_path / "new" / "project" / "sub" / "a.py").read_text() == "a = 1\n"
    assert not (tmp_path / "new" / "project" / "__pycache__").exists()


def test_nothing_is_overwritten_and_nothing_else_written(tmp_path: Path) -> None:
    target = tmp_path / "project"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "a.py").write_text("mine")
    with pytest.raises(ConflictError, match=r"a\.py"):
        create_project(_template(tmp_path), target)
    assert (target / "sub" / "a.py").read_text() == "mine"
    assert not (target / "README.md").exists()


def test_other_files_in_the_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    create_project(_template(tmp_path), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        create_project(_template(tmp_path), tmp_path / "file")


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = _template(tmp_path)
    read = Path.read_bytes

    def interrupted(path: Path) -> bytes:
        if path.name == "a.py":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", interrupted)
    with pytest.raises(builtins.KeyboardInterrupt):
        create_project(template, tmp_path / "new" / "project")
    assert not (tmp_path / "new").exists()


def test_a_write_that_fails_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = _template(tmp_path)

    def full(self: Path) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "read_bytes", full)
    with pytest.raises(OSError, match="No space") as caught:
        create_project(template, tmp_path / "p")
    assert caught.value.filename == str(tmp_path / "p")
    assert not (tmp_path / "p").exists()
