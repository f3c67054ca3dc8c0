"""Twenty-odd ways in which a plugin can be broken; each is named, and none stops the good one beside it."""

from __future__ import annotations

from typing import Any

import pytest

GOOD = """
@hookimpl
def bentotool_templates():
    return [TemplateDecl("good", package="json", path="x", summary="Good")]
"""

BROKEN = {
    "syntax error": ("def (", "SyntaxError"),
    "raises at import": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits at import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "missing dependency": ("import no_such_package_at_all", "No module named 'no_such_package_at_all'"),
    "message of many lines": ("raise ValueError('a\\nb\\x1b[31m')", "ValueError: a b [31m"),
    "endless message": ("raise ValueError('x' * 100000)", "ValueError: xxx"),
    "no hooks": ("x = 1", "implements no hook"),
    "misspelt marked hook": ("@hookimpl\ndef bentotool_framewroks(): return []", "did you mean 'bentotool_frameworks'"),
    "misspelt unmarked hook": ("def bentotool_comands(): return []", "did you mean 'bentotool_commands'"),
    "unmarked hook": ("def bentotool_templates(): return []", "not marked with @hookimpl"),
    "unknown argument": ("@hookimpl\ndef bentotool_templates(nonsense): return []", "nonsense"),
    "wrapper": ("@hookimpl(wrapper=True)\ndef bentotool_templates():\n    return (yield)", "wrapper"),
    "old wrapper": ("@hookimpl(hookwrapper=True)\ndef bentotool_templates():\n    yield", "wrapper"),
    "other interface": ("BENTOTOOL_API_VERSION = 99\n" + GOOD, "plugin interface 99"),
    "raises in hook": ("@hookimpl\ndef bentotool_templates(): 1 / 0", "bentotool_templates failed: ZeroDivisionError"),
    "exits in hook": ("import sys\n@hookimpl\ndef bentotool_templates(): sys.exit()", "SystemExit"),
    "returns a number": ("@hookimpl\ndef bentotool_templates(): return 7", "returned int"),
    "returns text": ("@hookimpl\ndef bentotool_templates(): return 'abc'", "returned str"),
    "returns a mapping": ("@hookimpl\ndef bentotool_templates(): return {}", "returned dict"),
    "returns other records": ("@hookimpl\ndef bentotool_templates(): return [{}]", "returned a dict"),
    "returns None among records": ("@hookimpl\ndef bentotool_templates(): return [None]", "returned a NoneType"),
    "never ends": (
        "@hookimpl\ndef bentotool_templates():\n    while True:\n        yield TemplateDecl('a', 'b', 'c', 'd')",
        "more than 1000",
    ),
    "raises while it yields": (
        "@hookimpl\ndef bentotool_templates():\n    yield TemplateDecl('a', 'b', 'c', 'd')\n    raise KeyError('k')",
        "KeyError",
    ),
    "is async": ("@hookimpl\nasync def bentotool_templates(): return []", "async function"),
    "bad record": (
        "@hookimpl\ndef bentotool_templates(): return [TemplateDecl('T', 'b', '../c', 'd')]",
        "ValueError: name 'T'",
    ),
    "climbing template": (
        "@hookimpl\ndef bentotool_templates(): return [TemplateDecl('t', 'b', '../c', 'd')]",
        "'../c' is not a relative path",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_and_stops_nobody(make: Any, kind: str) -> None:
    source, expected = BROKEN[kind]
    make.add("bad", source)
    make.add("good", GOOD)
    plugins = make.plugins()
    assert list(plugins.templates()) == ["good"]
    assert len(make.warnings) == 1
    warning = make.warnings[0]
    assert "'bad' (dist-bad 1.2)" in warning
    assert expected in warning
    assert "\n" not in warning
    assert len(warning) < 400
    states = {state.name: state for state in plugins.states()}
    assert states["good"].state == "loaded"
    assert states["bad"].problem


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("no_such_module_anywhere", "No module named"),
        ("{module}:nothing", "AttributeError"),
        ("{module}:number", "not a module"),
        (":x", "not of the form"),
        (".relative", "not of the form"),
        ("{module}:Class", "not a module"),
    ],
)
def test_a_wrong_entry_point(make: Any, target: str, expected: str) -> None:
    make.add("bad", "number = 3\nclass Class: pass", target=target)
    make.add("good", GOOD)
    assert list(make.plugins().templates()) == ["good"]
    assert expected in make.warnings[0]


def test_an_object_can_be_a_plugin(make: Any) -> None:
    source = """
class Plugin:
    @hookimpl
    def bentotool_templates(self):
        return [TemplateDecl("mine", "json", "x", "Mine")]
plugin = Plugin()
"""
    make.add("object", source, target="{module}:plugin")
    assert list(make.plugins().templates()) == ["mine"]
    assert make.warnings == []


def test_the_users_interrupt_is_no_failure_of_the_plugin(make: Any) -> None:
    make.add("slow", "raise KeyboardInterrupt")
    plugins = make.plugins()
    with pytest.raises(KeyboardInterrupt):
        plugins.templates()


def test_what_a_plugin_prints_stays_out_of_results(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make.add("loud", "print('at import')\n@hookimpl\ndef bentotool_after_build(bento): print('in hook')")
    make.plugins().call("bentotool_after_build", bento=None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "at import\nin hook\n"


def test_one_name_taken_by_two_distributions(make: Any) -> None:
    make.add("same", GOOD, distribution="first")
    make.add("same", GOOD, distribution="second")
    make.add("good", GOOD)
    plugins = make.plugins()
    assert list(plugins.templates()) == ["good"]
    assert len(make.warnings) == 2
    assert all("first 1.2 and second 1.2" in warning for warning in make.warnings)
    assert [state.state for state in plugins.states()] == ["loaded", "failed", "failed"]


def test_failures_are_warned_about_once(make: Any) -> None:
    make.add("bad", "raise RuntimeError('boom')")
    plugins = make.plugins()
    for _ in range(3):
        plugins.templates()
        plugins.frameworks()
        plugins.states()
    assert len(make.warnings) == 1
    assert [str(failure) for failure in plugins.failures] == make.warnings
