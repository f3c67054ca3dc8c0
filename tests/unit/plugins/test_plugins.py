from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bentotool.errors import MissingDependencyError, PluginError, UsageError
from bentotool.plugins import load_plugins

TEMPLATE = """
@hookimpl
def bentotool_templates():
    return [TemplateDecl({name!r}, package="json", path="x", summary="A template")]
"""


def test_nothing_is_imported_before_a_kind_is_asked_for(make: Any) -> None:
    module = make.add("lazy", TEMPLATE.format(name="a"))
    plugins = make.plugins()
    assert module not in sys.modules
    plugins.templates()
    assert module in sys.modules


def test_a_disabled_plugin_is_not_imported(make: Any) -> None:
    module = make.add("off", TEMPLATE.format(name="a"))
    plugins = make.plugins("off")
    assert plugins.templates() == {}
    assert module not in sys.modules
    assert [(state.name, state.state) for state in plugins.states()] == [("off", "disabled")]


def test_plugins_are_disabled_by_environment(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make.add("one", TEMPLATE.format(name="a"))
    make.add("two", TEMPLATE.format(name="b"))
    make.add("three", TEMPLATE.format(name="c"))
    monkeypatch.setenv("BENTOTOOL_DISABLE_PLUGINS", "one, two")
    installed = {"one", "two", "three"}
    states = {state.name: state.state for state in load_plugins().states() if state.name in installed}
    assert states == {"one": "disabled", "two": "disabled", "three": "loaded"}


def test_a_clash_of_names_names_both(make: Any) -> None:
    make.add("one", TEMPLATE.format(name="same"))
    make.add("two", TEMPLATE.format(name="same"))
    with pytest.raises(PluginError) as caught:
        make.plugins().templates()
    assert "dist-one 1.2" in caught.value.message
    assert "dist-two 1.2" in caught.value.message
    assert caught.value.hint == "bentotool --disable-plugin two …"
    assert list(make.plugins("two").templates()) == ["same"]


def test_check_reports_a_clash_without_raising(make: Any) -> None:
    make.add("one", TEMPLATE.format(name="same"))
    make.add("two", TEMPLATE.format(name="same"))
    plugins = make.plugins()
    assert [failure.plugin.name for failure in plugins.check()] == ["one", "two"]
    assert all("is declared by" in str(state.problem) for state in plugins.states())


def test_commands_that_clash_are_left_out(make: Any) -> None:
    for name in ("one", "two"):
        make.add(name, "@hookimpl\ndef bentotool_commands(): yield CommandDecl('both', 'a:b', 'Both')")
    make.add("three", "@hookimpl\ndef bentotool_commands(): yield CommandDecl('build', 'a:b', 'Another build')")
    make.add("four", "@hookimpl\ndef bentotool_commands(): yield CommandDecl('fine', 'a:b', 'Fine')")
    assert list(make.plugins().commands(reserved={"build"})) == ["fine"]
    assert len(make.warnings) == 2


def test_unknown_framework_has_a_suggestion(make: Any, framework_source: Callable[..., str]) -> None:
    make.add("text", framework_source("text"))
    with pytest.raises(UsageError) as caught:
        make.plugins().framework("texd")
    assert caught.value.message == "no installed plugin knows framework 'texd'; installed: text"
    assert caught.value.hint == "did you mean 'text'?"


def test_resolve_makes_one_object_of_a_class(make: Any, framework_source: Callable[..., str]) -> None:
    make.add("text", framework_source("text"))
    plugins = make.plugins()
    assert plugins.framework("text") is plugins.framework("text")
    assert plugins.loader_path("text").is_file()


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("import no_such_thing_here", MissingDependencyError, "no_such_thing_here"),
        ("raise ValueError('no')", PluginError, "ValueError: no"),
        ("def Text(): pass", PluginError, "is not a Framework"),
        ("", PluginError, "AttributeError"),
    ],
)
def test_a_target_that_fails_is_the_plugins_fault(make: Any, body: str, error: type[Exception], message: str) -> None:
    target = make.add("target", body, distribution="dist-target")
    hook = "return [FrameworkDecl('text', '{}:Text', 'T', loader='json')]"
    make.add("text", f"@hookimpl\ndef bentotool_frameworks(): {hook.format(target)}")
    plugins = make.plugins("target")
    with pytest.raises(error, match=message) as caught:
        plugins.framework("text")
    assert "plugin 'text' (dist-text 1.2)" in str(caught.value)


@pytest.mark.parametrize("loader", ["no_such_module_here", "no_such.module", "sys"])
def test_a_loader_that_is_no_file(make: Any, loader: str) -> None:
    make.add(
        "text", f"@hookimpl\ndef bentotool_frameworks(): yield FrameworkDecl('text', 'a:b', 'T', loader={loader!r})"
    )
    with pytest.raises(PluginError, match="loader"):
        make.plugins().loader_path("text")


def test_importing_the_manager_imports_no_importlib_metadata() -> None:
    code = "import sys, bentotool.plugins as p; p.load_plugins().states(); print('importlib.metadata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
