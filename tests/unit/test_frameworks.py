from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bentotool.errors import MissingDependencyError, NotFoundError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.models.reader import Model

LOADER = """
def load(path, **options):
    return path.read_text(), options
"""


@pytest.fixture
def bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Bento on disk with a model of a framework that no plugin here knows."""
    home = tmp_path / "root" / "home" / "bento"
    (home / "loaders").mkdir(parents=True)
    (home / "loaders" / "toy.py").write_text(LOADER, encoding="utf-8")
    (tmp_path / "root" / "models" / "m").mkdir(parents=True)
    (tmp_path / "root" / "models" / "m" / "m.toy").write_text("hello", encoding="utf-8")
    write(home, {})
    monkeypatch.setenv("BENTOTOOL_BENTO", str(home / "bento.json"))
    yield home
    sys.modules.pop("_bentotool_loader_toy", None)


def write(home: Path, model: dict[str, object], **document: object) -> None:
    entry = {
        "alias": "m:latest",
        "name": "m",
        "version": "1",
        "digest": "sha256:0",
        "path": "models/m",
        "framework": "toy",
        "safety": "data",
        "main_file": "m.toy",
        **model,
    }
    content = {"models": [entry], "loaders": {"toy": "loaders/toy.py"}, **document}
    (home / "bento.json").write_text(json.dumps(content), encoding="utf-8")
    from bentotool.models import reader

    reader._bundled.cache_clear()


def test_in_a_bento_the_loader_file_is_used(bento: Path) -> None:
    toy = namespace("toy")
    assert toy.load_model("m:latest", x=1) == ("hello", {"x": 1})
    assert toy.load_model(toy.get("m")) == ("hello", {})
    assert sys.modules["_bentotool_loader_toy"].__file__ == str((bento / "loaders" / "toy.py").resolve())


def test_a_loader_that_is_a_package(bento: Path) -> None:
    """Its modules import each other relatively, and those of another Bento do not stay."""
    for answer in ("one", "two"):
        home = bento.parent / answer
        (home / "loaders" / "toy").mkdir(parents=True)
        source = "from .inner import ANSWER\ndef load(path): return ANSWER\n"
        (home / "loaders" / "toy" / "__init__.py").write_text(source, encoding="utf-8")
        (home / "loaders" / "toy" / "inner.py").write_text(f"ANSWER = {answer!r}\n", encoding="utf-8")
        (bento / "loaders" / answer).mkdir()
        write(bento, {}, loaders={"toy": f"loaders/{answer}/toy/__init__.py"})
        (home / "loaders" / "toy").rename(bento / "loaders" / answer / "toy")
        assert namespace("toy").load_model("m:latest") == answer
    for name in [each for each in sys.modules if each.startswith("_bentotool_loader_toy.")]:
        del sys.modules[name]


def test_only_frameworks_of_the_bento_are_there(bento: Path) -> None:
    with pytest.raises(AttributeError, match="onnx"):
        namespace("onnx")


@pytest.mark.parametrize("name", ["_private", "__path__", "plugins", "errors", "no_such_framework"])
def test_what_is_no_framework_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        namespace(name)


def test_a_model_of_another_framework(bento: Path) -> None:
    write(bento, {"framework": "other"})
    with pytest.raises(UsageError, match="m:1 is a model of framework 'other', not 'toy'") as caught:
        namespace("toy").load_model("m:latest")
    assert caught.value.hint == "use bentotool.other"


def test_a_pickle_needs_trust_in_code(bento: Path) -> None:
    write(bento, {"safety": "pickle"})
    with pytest.raises(UnsafeError, match="m:1 is a pickle"):
        namespace("toy").load_model("m:latest")
    with pytest.raises(UnsafeError):  # a setting read as text is no consent, whatever the text
        namespace("toy").load_model("m:latest", trust="false")
    assert namespace("toy").load_model("m:latest", trust=True) == ("hello", {"trust": True})


def test_a_refusal_of_the_loader_is_unsafe_too(bento: Path) -> None:
    source = "class Refused(ValueError):\n    unsafe = True\ndef load(path): raise Refused('unknown types')\n"
    (bento / "loaders" / "toy.py").write_text(source, encoding="utf-8")
    with pytest.raises(UnsafeError, match="unknown types"):
        namespace("toy").load_model("m:latest")


@pytest.mark.parametrize("unsafe", [False, True])
def test_a_folder_of_the_store_is_called_by_its_model(bento: Path, unsafe: bool) -> None:
    """The loader knows no names of models, and the store's name for the folder tells the user nothing."""
    source = f"class Refused(ValueError):\n    unsafe = {unsafe}\n"
    source += "def load(path): raise Refused(f'{path.name} runs code, see {path}/x')\n"
    (bento / "loaders" / "toy.py").write_text(source, encoding="utf-8")
    folder = bento / "views" / ("ab" * 32)
    folder.mkdir(parents=True)
    with pytest.raises(UnsafeError if unsafe else ValueError, match="^m:1 runs code, see m:1/x$"):
        namespace("toy").load_model(Model("m:1", f"sha256:{'ab' * 32}", folder, {"framework": "toy"}))


def test_a_framework_that_is_not_installed(bento: Path) -> None:
    (bento / "loaders" / "toy.py").write_text("def load(path):\n    import no_such_package.sub\n", encoding="utf-8")
    with pytest.raises(MissingDependencyError, match="no_such_package") as caught:
        namespace("toy").load_model("m:latest")
    assert caught.value.hint == "pip install no_such_package"


@pytest.mark.parametrize(
    ("package", "distribution"),
    [("sklearn", "scikit-learn"), ("PIL", "pillow"), ("yaml", "pyyaml"), ("llama_cpp.server", "llama-cpp-python")],
)
def test_what_is_installed_is_not_always_called_as_what_is_imported(package: str, distribution: str) -> None:
    error = MissingDependencyError(package)
    assert (error.hint, error.package) == (f"pip install {distribution}", package)
    assert MissingDependencyError(package, install="other[extra]").hint == "pip install other[extra]"


def test_a_loader_outside_the_bento_is_refused(bento: Path) -> None:
    (bento.parent / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    write(bento, {}, loaders={"toy": "../evil.py"})
    with pytest.raises(UnsafeError, match="outside the Bento"):
        namespace("toy").load_model("m:latest")


def test_a_loader_that_is_gone(bento: Path) -> None:
    (bento / "loaders" / "toy.py").unlink()
    with pytest.raises(NotFoundError, match="no loader"):
        namespace("toy").load_model("m:latest")


def test_nothing_is_saved_inside_a_bento(bento: Path) -> None:
    with pytest.raises(UsageError, match="inside a Bento"):
        namespace("toy").save_model("m", object())


def test_it_works_where_only_the_runtime_side_exists(bento: Path, tmp_path: Path) -> None:
    """The files of the embedded runtime that this needs, copied elsewhere, with neither plugins nor pluggy in reach."""
    import bentotool

    package, alone = Path(str(bentotool.__file__)).parent, tmp_path / "alone" / "bentotool"
    for name in ("errors.py", "frameworks.py", "models/reader.py", "models/trust.py"):
        (alone / name).parent.mkdir(parents=True, exist_ok=True)
        (alone / name).write_bytes((package / name).read_bytes())
    for name in ("__init__.py", "models/__init__.py"):
        (alone / name).write_text("", encoding="utf-8")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from bentotool.frameworks import namespace
        assert namespace("toy").load_model("m:latest") == ("hello", {})
        from bentotool.errors import UnsafeError
        from bentotool.models.reader import Model
        pickled = Model("m:1", "sha256:0", sys, {"safety": "pickle", "metadata": {"needs_trust": ["it calls home"]}})
        try:
            namespace("toy").load_model(pickled)
        except UnsafeError as error:
            assert error.message == "m:1 runs code when it is loaded: it calls home", error.message
            assert error.hint.startswith("trust=True loads it"), error.hint
        else:
            raise AssertionError
        assert not {"pluggy", "typer", "bentotool.plugins"} & set(sys.modules)
    """
    command = [sys.executable, "-S", "-c", textwrap.dedent(code), str(tmp_path / "alone")]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
