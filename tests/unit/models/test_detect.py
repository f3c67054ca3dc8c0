from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentotool.errors import PluginError, UnsafeError, UsageError
from bentotool.interfaces import Match, ModelInfo, SourceFile
from bentotool.models.detect import describe_model, detect_framework, require_trust
from bentotool.plugin_scan import FoundPlugin
from bentotool.plugins import Plugins

SOURCE = """
from bentotool.hookspecs import hookimpl
from bentotool.interfaces import FrameworkDecl, Magic, Match, ModelInfo
from bentotool.errors import UsageError

class Impl:
    def detect(self, files):
        {detect}
    def describe(self, files):
        {describe}
    def save(self, obj, directory, **options): ...

@hookimpl
def bentotool_frameworks():
    yield FrameworkDecl({name!r}, {impl!r}, "x", loader="json", {formats})
{more}
"""


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: list[FoundPlugin] = []

    def add(
        self, name: str, detect: str = "", *, formats: str = 'suffixes=(".m",)', describe: str = "", more: str = ""
    ) -> str:
        module = f"detect_test_{name}"
        body = {
            "detect": detect or f"return Match({name!r}, 'f', 0.5, files[0].name)",
            "describe": describe or f"return ModelInfo({name!r}, 'f')",
            "impl": f"{module}_impl:Impl",
        }
        text = SOURCE.format(name=name, formats=formats, more=more, **body)
        for suffix in ("", "_impl"):
            (self.folder / f"{module}{suffix}.py").write_text(text, encoding="utf-8")
        self.found.append(FoundPlugin(name, module, f"dist-{name}", "1"))
        return f"{module}_impl"

    @property
    def plugins(self) -> Plugins:
        return Plugins(self.found, warn=pytest.fail)

    def files(self, *names: str, content: bytes = b"content") -> list[SourceFile]:
        model = self.folder / "my-model"
        files = []
        for name in names:
            path = model / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            files.append(SourceFile(path, name))
        return files


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield World(tmp_path)
    for name in [name for name in sys.modules if name.startswith("detect_test_")]:
        del sys.modules[name]


def test_by_suffix_and_only_the_likely_plugin_is_imported(world: World) -> None:
    world.add("likely")
    unlikely = world.add("unlikely", formats='suffixes=(".other",), magic=(Magic(2, b"xyz"),)')
    _, match = detect_framework(world.files("a.M"), world.plugins)
    assert match == Match("likely", "f", 0.5, "a.M")
    assert unlikely not in sys.modules


@pytest.mark.parametrize("part", ["detect", "describe"])
def test_a_file_under_its_digest_is_called_what_the_model_calls_it(world: World, part: str) -> None:
    body = {part: "raise UsageError(f'{files[0].path.name} is damaged, see {files[0].path}')"}
    world.add("damaged", **body)
    (file,) = world.files("ab" * 32)
    with pytest.raises(UsageError) as caught:
        describe_model([SourceFile(file.path, "sub/a.m")], world.plugins)
    assert caught.value.message == str(caught.value) == "sub/a.m is damaged, see sub/a.m"


def test_by_magic(world: World) -> None:
    world.add("magic", formats='magic=(Magic(2, b"xyz"),)')
    _, match = detect_framework(world.files("nosuffix", content=b"..xyz"), world.plugins)
    assert match.framework == "magic"
    with pytest.raises(UsageError):
        detect_framework(world.files("nosuffix", content=b".xyz."), world.plugins)


def test_the_highest_confidence_wins(world: World) -> None:
    world.add("low")
    world.add("high", "return Match('high', 'f', 0.9)")
    assert detect_framework(world.files("a.m"), world.plugins)[1].framework == "high"


def test_equal_claims_are_an_error_that_names_them(world: World) -> None:
    world.add("one")
    world.add("two")
    with pytest.raises(UsageError) as caught:
        detect_framework(world.files("a.m"), world.plugins)
    assert caught.value.message == "a.m could be of framework 'one' or 'two'"
    assert caught.value.hint == "say which: --framework one"
    assert detect_framework(world.files("a.m"), world.plugins, "two")[1].framework == "two"


def test_a_folder_of_several_models_is_refused(world: World) -> None:
    world.add("low", "return Match('low', 'f', 0.2, 'b.m')")
    world.add("high", "return Match('high', 'f', 0.9, 'a.m')")
    files = world.files("a.m", "b.m")
    with pytest.raises(UsageError) as caught:
        detect_framework(files, world.plugins)
    assert caught.value.message == "my-model holds several models: a.m (high), b.m (low)"
    assert caught.value.hint == "import one file, choose files with --include, or say which: --framework high"
    assert detect_framework(files, world.plugins, "low")[1].main_file == "b.m"
    assert detect_framework(files, world.plugins, "high")[1].main_file == "a.m"


@pytest.mark.parametrize(
    ("high", "low"), [("", "b.m"), ("a.m", ""), ("a.m", "a.m"), ("a.m", "a.n"), ("sub/a.b.m", "sub/a.b.n")]
)
def test_claims_on_one_model(world: World, high: str, low: str) -> None:
    world.add("low", f"return Match('low', 'f', 0.2, {low!r})")
    world.add("high", f"return Match('high', 'f', 0.9, {high!r})")
    files = world.files("a.m", "b.m", "a.n", "sub/a.b.m", "sub/a.b.n")
    assert detect_framework(files, world.plugins)[1].framework == "high"


SEVERAL = """if len(files) > 1: raise UsageError('there are several models')
        return Match('many', 'f', 0.2, files[0].name) if files[0].name[0] == 'p' else None"""


def test_a_framework_that_sees_several_models_counts(world: World) -> None:
    world.add("one", "return Match('one', 'f', 0.9, 'a.m')")
    world.add("many", SEVERAL, formats='suffixes=(".m", ".pkl")')
    with pytest.raises(UsageError, match=r"several models: a\.m \(one\), p\.pkl \(many\)"):
        detect_framework(world.files("a.m", "p.pkl", "q.pkl"), world.plugins)
    for names in (("a.m", "p.m", "p2.m"), ("a.m", "q.pkl"), ("a.m", "README.md")):
        assert detect_framework(world.files(*names), world.plugins)[1].framework == "one"


def test_no_claim(world: World) -> None:
    world.add("one", "return None")
    with pytest.raises(UsageError) as caught:
        detect_framework(world.files("iris.txt"), world.plugins)
    assert caught.value.message == "iris.txt is not a model that an installed plugin knows"
    assert "installed: one" in str(caught.value.hint)
    assert caught.value.exit_status == 2


def test_no_plugin_at_all(world: World) -> None:
    with pytest.raises(UsageError) as caught:
        detect_framework(world.files("a/b.m", "c.m"), world.plugins)
    assert caught.value.message == "my-model is not a model that an installed plugin knows"
    assert "pip install bentotool-" in str(caught.value.hint)


def test_the_plugin_that_a_file_usually_wants_is_named(world: World) -> None:
    world.add("one")
    with pytest.raises(UsageError) as caught:
        detect_framework(world.files("net.PT"), world.plugins)
    assert caught.value.hint == "for .pt: pip install bentotool-torch"


def test_no_files(world: World) -> None:
    with pytest.raises(UsageError, match="no files"):
        detect_framework([], world.plugins)


def test_named_framework(world: World) -> None:
    world.add("one", "return None")
    with pytest.raises(UsageError, match="is not a model that framework 'one' knows"):
        detect_framework(world.files("a.m"), world.plugins, "one")
    with pytest.raises(UsageError, match="no installed plugin knows framework 'ona'") as caught:
        detect_framework(world.files("a.m"), world.plugins, "ona")
    assert caught.value.hint == "did you mean 'one'?"


def test_damage_is_told_unless_another_framework_knows_better(world: World) -> None:
    world.add("one", "raise UsageError('a.m is cut short')")
    with pytest.raises(UsageError, match=r"a\.m is cut short"):
        detect_framework(world.files("a.m"), world.plugins)
    world.add("two")
    assert detect_framework(world.files("a.m"), world.plugins)[1].framework == "two"


@pytest.mark.parametrize(
    "detect",
    [
        "1 / 0",
        "return 'one'",
        "return Match('other', 'f', 1.0)",
        "return Match('one', 'f', 1.0, 'absent.m')",
        "return Match('one', 'f', 7)",
    ],
)
def test_a_plugins_mistake_is_not_the_users(world: World, detect: str) -> None:
    world.add("one", detect)
    with pytest.raises(PluginError, match="one"):
        detect_framework(world.files("a.m"), world.plugins)


@pytest.mark.parametrize("describe", ["1 / 0", "return {}"])
def test_a_description_that_fails(world: World, describe: str) -> None:
    world.add("one", describe=describe)
    with pytest.raises(PluginError, match="'one'"):
        describe_model(world.files("a.m"), world.plugins)


def test_the_identify_hook_decides_first(world: World) -> None:
    world.add("one")
    world.add("two", more="@hookimpl\ndef bentotool_identify_model(files): return 'two'")
    assert detect_framework(world.files("a.m"), world.plugins)[1].framework == "two"


def test_a_pickle_needs_trust(world: World) -> None:
    world.add("one", describe="return ModelInfo('one', 'pickle', safety='pickle')")
    files = world.files("a.m")
    with pytest.raises(UnsafeError, match=r"a\.m is a pickle") as caught:
        describe_model(files, world.plugins)
    assert caught.value.exit_status == 6
    assert "--trust" in str(caught.value.hint)
    assert describe_model(files, world.plugins, trust=True) == ModelInfo("one", "pickle", safety="pickle")


@pytest.mark.parametrize(
    ("reasons", "message"),
    [
        ("['layer 1 is a Lambda', 'b\\n\\x1b[2Jc']", "a.m runs code when it is loaded: layer 1 is a Lambda; b [2Jc"),
        ("['a', 'b', 'c', 'd']", "a.m runs code when it is loaded: a; b; c"),
        ("['x' * 500]", f"a.m runs code when it is loaded: {'x' * 119}…"),
        ("['it is a pickle']", "a.m is a pickle: loading it runs whatever code its author put in"),
        ("[]", "a.m runs code when it is loaded"),
        ("[7, '']", "a.m runs code when it is loaded"),
        ("'text'", "a.m runs code when it is loaded"),
    ],
)
def test_what_needs_trust_is_said(world: World, reasons: str, message: str) -> None:
    describe = f"return ModelInfo('one', 'keras', safety='pickle', metadata={{'needs_trust': {reasons}}})"
    world.add("one", describe=describe)
    with pytest.raises(UnsafeError) as caught:
        describe_model(world.files("a.m"), world.plugins)
    assert caught.value.message == message
    with pytest.raises(UnsafeError, match="m is a pickle and runs code when it is loaded: it calls os"):
        require_trust("pickle", "m", trust=False, reasons=["it is a pickle", "it calls os"])
    assert "--trust" in str(caught.value.hint)


def test_pickles_beside_a_model_of_data_are_told(world: World) -> None:
    world.add("one", "return Match('one', 'f', 0.9) if len(files) > 1 else None")
    claim = "return Match('two', 'f', 0.2, files[0].name) if files[0].name[0] in 'dp' else None"
    safety = "return ModelInfo('two', 'f', safety='pickle' if files[0].name[0] == 'p' else 'data')"
    world.add("two", claim, describe=safety, formats='suffixes=(".bin",)')
    world.add("three", "1 / 0", formats='suffixes=(".bin",)')
    files = world.files("a.m", "d.bin", "p.bin", "sub/p.bin", "q.bin")
    assert describe_model(files, world.plugins).metadata == {"unused_pickles": ["p.bin"]}
    assert describe_model(world.files("a.m", "d.bin"), world.plugins).metadata == {}
