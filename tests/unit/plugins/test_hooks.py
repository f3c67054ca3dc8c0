"""Every hook is documented, its example works, and something calls it; a hook without a test here fails the suite."""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool import hookspecs
from bentotool.errors import PluginError, UnsafeError, UsageError
from bentotool.interfaces import Credentials, PlanAddition, SourceFile
from bentotool.plugin_load import HOOKS, new_manager
from bentotool.protocols import Archive, Framework, Loader
from bentotool.signspec import BundleSigner, CertificateVerifier, KeyHolder, SignerDecl, Signers
from bentotool.targetspec import OptionSpec, Target, TargetDecl

SECTIONS = ("When", "Arguments", "Return", "Example")
FAIL = "@hookimpl\ndef {hook}(): raise ValueError('boom')"


def example(documented: object) -> str:
    text = inspect.getdoc(documented) or ""
    return textwrap.dedent(text.partition("Example::")[2])


@pytest.mark.parametrize("hook", HOOKS)
def test_documented(hook: str) -> None:
    function = getattr(hookspecs, hook)
    text = inspect.getdoc(function) or ""
    positions = [text.find(f"\n{section}:") for section in SECTIONS]
    assert positions == sorted(positions)
    assert positions[0] > 0
    arguments = text[positions[1] : positions[2]]
    for name in inspect.signature(function).parameters:
        assert f"``{name}``" in arguments
    assert all(p.annotation is not inspect.Parameter.empty for p in inspect.signature(function).parameters.values())


@pytest.mark.parametrize("hook", HOOKS)
def test_example_compiles_and_registers(hook: str) -> None:
    module = types.ModuleType("example")
    exec(compile(example(getattr(hookspecs, hook)), hook, "exec"), module.__dict__)
    manager = new_manager()
    manager.register(module, "example")
    manager.check_pending()
    assert [implementation.plugin_name for implementation in getattr(manager.hook, hook).get_hookimpls()] == ["example"]


@pytest.mark.parametrize(
    "protocol", [Archive, Framework, Loader, Target, KeyHolder, BundleSigner, CertificateVerifier, Signers]
)
def test_protocols_are_documented_and_small(protocol: type) -> None:
    text = inspect.getdoc(protocol) or ""
    assert all(f"{section}:" in text for section in SECTIONS)
    compile(example(protocol), protocol.__name__, "exec")
    assert len([name for name in vars(protocol) if not name.startswith("_")]) <= 6


def test_framework_example_is_a_framework(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec("from bentotool.interfaces import *\n" + example(Framework), names)
    framework = names["Text"]()
    assert isinstance(framework, Framework)
    framework.save("hello", tmp_path)
    files = [SourceFile(tmp_path / "model.txtmodel", "model.txtmodel")]
    assert framework.describe(files).main_file == "model.txtmodel"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    assert f"test_hook_{hook.removeprefix('bentotool_')}" in globals()


def test_the_reference_page_shows_every_signature(request: pytest.FixtureRequest) -> None:
    page = (request.config.rootpath / "docs" / "plugins.md").read_text(encoding="utf-8")
    for hook in HOOKS:
        arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
        assert f"`{hook}({arguments})`" in page
    assert set(re.findall(r"`(bentotool_\w+)\(", page)) == set(HOOKS)


# -- one test for each hook -------------------------------------------------------------------------------------------


def test_hook_frameworks(make: Any, framework_source: Callable[..., str]) -> None:
    make.add("one", framework_source("text"))
    assert make.plugins().frameworks()["text"].suffixes == (".txtmodel",)


def test_hook_sources(make: Any) -> None:
    make.add("one", "@hookimpl\ndef bentotool_sources(): yield SourceDecl('s', 'a:b', 'S', schemes=('s3', 'gs'))")
    assert set(make.plugins().sources()) == {"s3", "gs"}
    make.add("two", "@hookimpl\ndef bentotool_sources(): yield SourceDecl('t', 'a:b', 'T', schemes=('gs',))")
    with pytest.raises(PluginError, match="gs"):
        make.plugins().sources()


def test_hook_image_builders(make: Any) -> None:
    source = "from bentotool.imagespec import ImageBuilderDecl\n@hookimpl\ndef bentotool_image_builders():\n"
    make.add("one", source + "    yield ImageBuilderDecl('kiln', 'a:b', 'Bakes')")
    assert make.plugins().image_builders()["kiln"].target == "a:b"
    make.add("two", source + "    yield ImageBuilderDecl('kiln', 'c:d', 'Burns')")
    with pytest.raises(PluginError, match="kiln"):
        make.plugins().image_builders()


def test_hook_commands(make: Any) -> None:
    make.add("one", "@hookimpl\ndef bentotool_commands(): yield CommandDecl('hello world', 'a:b', 'Say hello')")
    assert make.plugins().commands()["hello world"].panel == "Plugins"


def test_hook_templates(make: Any) -> None:
    make.add("one", "@hookimpl\ndef bentotool_templates(): yield TemplateDecl('a', 'json', 'x/y', 'A')")
    assert make.plugins().templates()["a"].path == "x/y"


def test_hook_identify_model(make: Any) -> None:
    make.add("a", "@hookimpl\ndef bentotool_identify_model(files): return None")
    make.add("b", "@hookimpl\ndef bentotool_identify_model(files): return 'second'")
    make.add("c", "@hookimpl\ndef bentotool_identify_model(files): return 'third'")
    assert make.plugins().call("bentotool_identify_model", files=()) == ["second"]


def test_hook_registry_credentials(make: Any) -> None:
    make.add("broken", FAIL.format(hook="bentotool_registry_credentials"))
    make.add(
        "one",
        """
@hookimpl
def bentotool_registry_credentials(registry, actions):
    return Credentials("user", "secret") if registry == "here" and "push" in actions else None
""",
    )
    plugins = make.plugins()
    found = plugins.credentials("here", "a/b", ["pull", "push"])
    assert found == Credentials("user", "secret")
    assert "secret" not in repr(found)
    assert plugins.credentials("there", "a/b", ["pull", "push"]) is None


ADDITION = "@hookimpl\ndef bentotool_plan_build(models): return PlanAddition({})"


def test_hook_plan_build(make: Any) -> None:
    make.add("a", ADDITION.format("files={'x.txt': b'x'}, requirements=('r1',), env={'A': '1'}, labels={'n': 'v'}"))
    make.add("b", ADDITION.format("requirements=('r1', 'r2'), env={'A': '1', 'B': '2'}"))
    assert make.plugins().plan_build({}, []) == PlanAddition(
        files={"x.txt": b"x"}, requirements=("r1", "r2"), env={"A": "1", "B": "2"}, labels={"n": "v"}
    )


def test_hook_plan_build_clash(make: Any) -> None:
    make.add("a", ADDITION.format("env={'A': '1'}"))
    make.add("b", ADDITION.format("env={'A': '2'}"))
    with pytest.raises(PluginError, match=r"env 'A' of the Bento is declared by .*dist-a 1\.2.* and .*dist-b 1\.2"):
        make.plugins().plan_build({}, [])


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("files={'x.txt': b'1'}", "files={'x.txt': b'2'}", "files 'x.txt'"),
        ("files={'x.txt': b'1'}", "files={'X.txt': b'1'}", "files 'X.txt'"),
        ("labels={'n': '1'}", "labels={'n': '2'}", "labels 'n'"),
        ("requirements=('a-b==1',)", "requirements=('A_b==2',)", "requirement 'a-b'"),
        ("requirements=('a>=2',)", "requirements=('a<2',)", "requirement 'a'"),
        ("requirements=('a==1.*',)", "requirements=('a==1!1',)", "requirement 'a'"),
        ("requirements=('a @ https://x.example/a-1.whl',)", "requirements=('a==1',)", "requirement 'a'"),
    ],
)
def test_plan_build_conflicts_name_both(make: Any, one: str, other: str, what: str) -> None:
    make.add("a", ADDITION.format(one))
    make.add("b", ADDITION.format(other))
    with pytest.raises(
        PluginError, match=rf"^{what} of the Bento.*'a' \(dist-a 1\.2\) and .*'b' \(dist-b 1\.2\)"
    ) as caught:
        make.plugins().plan_build({}, [])
    assert caught.value.details == {"plugins": ["a", "b"]}
    assert make.plugins("b").plan_build({}, [])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a>=1", "a>=2,<3"), ("a>1", "a<1.0.1"), ("a==1.*", "a==1.5.*"), ("a~=1.4", "a<1.5"), ("a", "a[x]==2"),
        ("a==1; python_version < '3.11'", "a==2; python_version >= '3.11'"), ("a>=2rc1", "a<2.1"), ("a===x", "a===x "),
    ],
)  # fmt: skip
def test_requirements_that_go_together(make: Any, one: str, other: str) -> None:
    make.add("a", ADDITION.format(f"requirements=({one!r},)"))
    make.add("b", ADDITION.format(f"requirements=({other!r},)"))
    assert make.plugins().plan_build({}, []).requirements == (one, other)


@pytest.mark.parametrize(
    "wrong",
    ["env={'A B': 'x'}", "env={'A': 'x\\ny'}", "labels={'': 'x'}", "labels={'a b': 'x'}", "labels={'a': '\\x1b'}"],
)
def test_a_name_or_text_that_no_bento_can_have_names_the_plugin(make: Any, wrong: str) -> None:
    make.add("a", ADDITION.format(wrong))
    with pytest.raises(PluginError, match=r"plugin 'a' \(dist-a 1\.2\): (env|labels|bentotool_plan_build failed: Val)"):
        make.plugins().plan_build({}, [])


def test_a_requirement_that_is_none_names_the_plugin(make: Any) -> None:
    make.add("a", ADDITION.format("requirements=('one',)"))
    make.add("b", ADDITION.format("requirements=('not one!',)"))
    with pytest.raises(PluginError, match=r"'b' \(dist-b 1\.2\) adds 'not one!', which is no requirement"):
        make.plugins().plan_build({}, [])


def test_hook_base_image(make: Any) -> None:
    make.add("a", "@hookimpl\ndef bentotool_base_image(plan): return None")
    make.add("b", "@hookimpl\ndef bentotool_base_image(plan): return f'b.example/base:{plan[\"python\"]}'")
    make.add("c", "@hookimpl\ndef bentotool_base_image(): return 'c.example/base'")
    with pytest.raises(
        PluginError, match=r"base image of the Bento \('b\.example/base:3\.12', 'c\.example/base'\)"
    ) as error:
        make.plugins().base_image({"python": "3.12"})
    assert "plugin 'b' (dist-b 1.2) and plugin 'c' (dist-c 1.2)" in error.value.message
    assert make.plugins("c").base_image({"python": "3.12"}) == "b.example/base:3.12"
    assert make.plugins("b").base_image({}) == "c.example/base"
    assert make.plugins("b", "c").base_image({}) is None
    make.add("d", "@hookimpl\ndef bentotool_base_image(): return 'c.example/base'")
    assert make.plugins("b").base_image({}) == "c.example/base", "two of one mind"


def test_a_base_image_that_is_none_stops_the_build(make: Any) -> None:
    make.add("a", "@hookimpl\ndef bentotool_base_image(): return 'x\\nRUN evil'")
    with pytest.raises(PluginError, match=r"plugin 'a' \(dist-a 1\.2\): base image .* is no image reference"):
        make.plugins().base_image({})


ARCHIVE = "@hookimpl\ndef bentotool_archives(): yield ArchiveDecl({!r}, 'm:A', 'Crates', suffixes=({!r},))"


def test_hook_archives(make: Any) -> None:
    make.add("a", ARCHIVE.format("crate", ".crate"))
    assert make.plugins().archives()[".crate"].name == "crate"
    make.add("b", ARCHIVE.format("box", ".crate"))
    with pytest.raises(PluginError, match=r"archive '\.crate' is declared by .*dist-a 1\.2.* and .*dist-b 1\.2"):
        make.plugins().archives()


@pytest.mark.parametrize("hook", ["plan_build", "base_image", "before_push", "before_deploy", "runtime_middleware"])
def test_a_failure_stops_the_work_where_going_on_would_be_wrong(make: Any, hook: str) -> None:
    make.add("a", FAIL.format(hook=f"bentotool_{hook}"))
    arguments = {"config": {}, "models": (), "artifact": None, "service": "s:S", "plan": {}, "target": "t"}
    with pytest.raises(PluginError, match=rf"plugin 'a' \(dist-a 1\.2\): bentotool_{hook} failed: ValueError: boom"):
        make.plugins().call(f"bentotool_{hook}", **arguments)


def test_hook_after_build(make: Any) -> None:
    make.add("bad", FAIL.format(hook="bentotool_after_build"))
    make.add("good", "@hookimpl\ndef bentotool_after_build(bento): bento.seen = True")
    bento = SimpleNamespace(seen=False)
    assert make.plugins().call("bentotool_after_build", bento=bento) == []
    assert bento.seen
    assert len(make.warnings) == 1


def test_hook_before_push(make: Any) -> None:
    source = """
from bentotool.errors import UnsafeError
@hookimpl
def bentotool_before_push(artifact):
    if artifact.tag.endswith("draft"):
        raise UnsafeError("it is a draft", hint="finish it")
"""
    make.add("one", source)
    plugins = make.plugins()
    plugins.call("bentotool_before_push", artifact=SimpleNamespace(tag="a:1"))
    with pytest.raises(UnsafeError, match="it is a draft") as caught:
        plugins.call("bentotool_before_push", artifact=SimpleNamespace(tag="a:draft"))
    assert caught.value.details["plugin"] == "one"


def test_hook_after_push(make: Any) -> None:
    make.add("one", "@hookimpl\ndef bentotool_after_push(artifact, digest): artifact.append(digest)")
    seen: list[str] = []
    make.plugins().call("bentotool_after_push", artifact=seen, digest="sha256:0")
    assert seen == ["sha256:0"]


def test_hook_runtime_middleware(make: Any) -> None:
    make.add("a", "@hookimpl\ndef bentotool_runtime_middleware(service): return ['m:A', 'm:B']")
    make.add("b", "@hookimpl\ndef bentotool_runtime_middleware(service): return ['m:B', 'm.n:C']")
    make.add("c", "@hookimpl\ndef bentotool_runtime_middleware(service): return None")
    assert make.plugins().runtime_middleware("service:Iris") == ("m:A", "m:B", "m.n:C")


def test_middleware_that_is_no_target_stops_the_build(make: Any) -> None:
    make.add("a", "@hookimpl\ndef bentotool_runtime_middleware(service): return ['just a name']")
    with pytest.raises(PluginError, match=r"package\.module:attribute"):
        make.plugins().runtime_middleware("service:Iris")


TARGET = "from bentotool.targetspec import *\n@hookimpl\ndef bentotool_targets(): yield TargetDecl({!r}, 'a:b', 'T')"


def test_hook_targets(make: Any) -> None:
    make.add("a", TARGET.format("attic"))
    assert make.plugins().targets()["attic"].summary == "T"
    make.add("b", TARGET.format("attic"))
    with pytest.raises(PluginError, match=r"target 'attic' is declared by .*dist-a 1\.2.* and .*dist-b 1\.2"):
        make.plugins().targets()


def test_hook_before_deploy(make: Any) -> None:
    source = """
from bentotool.errors import UnsafeError
@hookimpl
def bentotool_before_deploy(target, plan):
    if target == "attic" and plan == "draft":
        raise UnsafeError("it is a draft", hint="finish it")
"""
    make.add("one", source)
    make.plugins().call("bentotool_before_deploy", target="cellar", plan="draft")
    with pytest.raises(UnsafeError, match="it is a draft"):
        make.plugins().call("bentotool_before_deploy", target="attic", plan="draft")


def test_hook_after_deploy(make: Any) -> None:
    make.add("bad", FAIL.format(hook="bentotool_after_deploy"))
    make.add("one", "@hookimpl\ndef bentotool_after_deploy(target, result): result.append(target)")
    seen: list[str] = []
    make.plugins().call("bentotool_after_deploy", target="attic", result=seen)
    assert seen == ["attic"]
    assert len(make.warnings) == 1


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        (OptionSpec("a", "integer", "A", minimum=1), "7", 7),
        (OptionSpec("a", "number", "A"), "0.5", 0.5),
        (OptionSpec("a", "flag", "A"), "Yes", True),
        (OptionSpec("a", "flag", "A"), "off", False),
        (OptionSpec("a", "text", "A", choices=("x", "y")), "y", "y"),
        (OptionSpec("a", "text", "A"), "", ""),
    ],
)
def test_options_of_targets(option: OptionSpec, text: str, value: object) -> None:
    assert option.parse(text) == value


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        (OptionSpec("a", "integer", "A", minimum=1), "0", "a '0' is not at least 1"),
        (OptionSpec("a", "integer", "A", maximum=9), "10", "a '10' is not at most 9"),
        (OptionSpec("a", "integer", "A"), "1.5", "a '1.5' is not a whole number"),
        (OptionSpec("a", "number", "A"), "nan", "a 'nan' is not a number"),
        (OptionSpec("a", "flag", "A"), "perhaps", "a 'perhaps' is not true or false"),
        (OptionSpec("a", "text", "A", choices=("x", "y")), "z", "a 'z' is not one of x, y"),
        (OptionSpec("a", "text", "A"), "x\ny", r"a 'x\ny' is not text without control characters"),
    ],
)
def test_values_that_an_option_of_a_target_does_not_take(option: OptionSpec, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        option.parse(text)
    assert caught.value.message == said


@pytest.mark.parametrize("wrong", [{"name": "A"}, {"kind": "color"}, {"summary": "a\nb"}, {"choices": ["x"]}])
def test_options_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="[Aa]"):
        OptionSpec(**{"name": "a", "kind": "text", "summary": "A", **wrong})


def test_a_target_has_each_option_once() -> None:
    option = OptionSpec("a", "text", "A")
    with pytest.raises(ValueError, match="options a stand twice"):
        TargetDecl("t", "a:b", "T", options=(option, option))


SIGNER = "from bentotool.signspec import *\n@hookimpl\ndef bentotool_signers(): yield SignerDecl({!r}, 'a:b', 'S', {})"


def test_hook_signers(make: Any) -> None:
    make.add("one", SIGNER.format("vault", "schemes=('vault',)"))
    assert make.plugins().signers()["vault"].schemes == ("vault",)
    make.add("two", SIGNER.format("vault", "keyless=True"))
    with pytest.raises(PluginError, match="signer 'vault' is declared by plugin 'one'.* and plugin 'two'"):
        make.plugins().signers()


def test_a_signer_says_what_it_is_for() -> None:
    with pytest.raises(ValueError, match="does nothing"):
        SignerDecl("idle", "a:b", "Idle")
    with pytest.raises(ValueError, match="scheme 'v'"):
        SignerDecl("vault", "a:b", "Vault", schemes=("v",))


def test_hook_signing_identity(make: Any) -> None:
    make.add("one", "@hookimpl\ndef bentotool_signing_identity(artifact): return f'vault:{artifact}'")
    assert make.plugins().call("bentotool_signing_identity", artifact="x") == ["vault:x"]
    make.add("one", "@hookimpl\ndef bentotool_signing_identity(): return 3")
    with pytest.raises(PluginError, match="it returned int, not str or None"):
        make.plugins().call("bentotool_signing_identity", artifact="x")
