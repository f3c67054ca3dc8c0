from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bentotool.build.configfile import load_config
from bentotool.build.requirements import LITESTAR_NEEDS, RUNTIME_REQUIREMENTS, Requirements, gather
from bentotool.errors import BentotoolError, ConfigError, NotFoundError, UnsafeError

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def gathered(write: Write) -> Callable[..., Requirements]:
    def run(files: dict[str, str], extra: tuple[str, ...] = ()) -> Requirements:
        return gather(load_config(write({"service.py": "", **files})), ("fakestar",), extra)

    return run


Gathered = Callable[..., Requirements]


def test_all_sources_come_together(gathered: Gathered) -> None:
    pyproject = '[project]\ndependencies = ["six"]\n[tool.bentotool.python]\nrequirements_txt = "reqs/main.txt"\n'
    main = (
        "# comment\nnumpy>=2 ; python_version > '3.9'  # why\n-r more.txt\n-c limits.txt\nscipy \\\n  >=1\n--no-index\n"
    )
    found = gathered(
        {
            "pyproject.toml": pyproject,
            "reqs/main.txt": main,
            "reqs/more.txt": "attrs\n",
            "reqs/limits.txt": "scipy<2\n",
        }
    )
    assert found.lines == ('numpy>=2; python_version > "3.9"', "attrs", "scipy>=1", "six", "fakestar")
    assert found.constraints == ("scipy<2",)
    assert found.indexes.no_index


def test_the_project_wins_over_what_models_ask_for(gathered: Gathered) -> None:
    found = gathered({"bentofile.yaml": "python: {packages: ['ONNX.runtime==1.0']}"}, ("onnx-runtime>=1.2", "numpy"))
    assert found.lines == ("ONNX.runtime==1.0", "numpy", "fakestar")


def test_another_build_of_a_package_counts_as_the_package(gathered: Gathered) -> None:
    text = "python: {packages: ['onnxruntime-gpu==1.20', tensorflow_cpu, my-gpu]}"
    found = gathered({"bentofile.yaml": text}, ("onnxruntime>=1.17", "tensorflow>=2.16", "numpy"))
    assert found.lines == ("onnxruntime-gpu==1.20", "tensorflow_cpu", "my-gpu", "numpy", "fakestar")


def test_bentotool_itself_is_not_locked(gathered: Gathered) -> None:
    text = "python: {packages: [bentotool, 'bentotool-onnx>=0.1', numpy]}"
    assert gathered({"bentofile.yaml": text}).lines == ("numpy", "fakestar")


def test_litestar_with_extras_keeps_its_own_metadata(gathered: Gathered) -> None:
    assert not gathered({"bentofile.yaml": "python: {packages: ['litestar[jinja]']}"}).lean_litestar
    assert gathered({"bentofile.yaml": "python: {packages: [litestar]}"}).lean_litestar


@pytest.mark.parametrize(
    "line",
    ["hg+https://example.org/x", "git+file:///srv/x", "x @ svn+https://h/x", "git+https://h/x@--upload-pack=x",
     "git+https://h/x#who=me", "./x.whl --config-settings=a=b", "x==1 --config-settings a=b", "x==1 --global-option=a",
     "x==$V", "no good", "x>>1", "x --hash=md5:00", "--prefer-binary", "--use-feature=fast", "--no-such-option",
     f"x==1 --hash=sha512:{'0' * 128}", "--only-binary ../x", "--extra-index-url not-a-url", "-C a=b",
     "http://host/x.whl", "${INDEX}", "--index-url https://${HOST}/simple"],
)  # fmt: skip
def test_a_line_that_cannot_be_honoured_names_its_place(gathered: Gathered, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gathered({"bentofile.yaml": "python: {requirements_txt: r.txt}", "r.txt": f"numpy\n{line}\n"})
    assert caught.value.path == ("r.txt", "line 2")


@pytest.mark.parametrize("key", ["index_url", "extra_index_url", "find_links"])
def test_credentials_stay_out_of_the_project(gathered: Gathered, key: str) -> None:
    value = "https://user:s3cret@packages.example/simple"
    shown = value if key == "index_url" else f"[{value}]"
    with pytest.raises(UnsafeError) as caught:
        gathered({"bentofile.yaml": f"python: {{{key}: {shown}}}"})
    assert "s3cret" not in caught.value.message
    for line in (f"--index-url {value}", f"x @ {value}/x.whl", f"--find-links={value}"):
        with pytest.raises(UnsafeError) as caught:
            gathered({"bentofile.yaml": "python: {requirements_txt: r.txt}", "r.txt": line})
        assert "s3cret" not in caught.value.message


def test_requirements_files_stay_inside(gathered: Gathered, tmp_path: Path, corpus: ModuleType) -> None:
    (tmp_path / "secret").write_text("canary==1")
    for path in corpus.PATHS:
        text = path.replace("\x00", "%00")
        with pytest.raises(BentotoolError):
            gathered({"bentofile.yaml": f"python: {{requirements_txt: {text!r}}}"})
        with pytest.raises(BentotoolError):
            gathered({"bentofile.yaml": "python: {requirements_txt: r.txt}", "r.txt": f"-r {text}\n"})


def test_files_that_are_absent_or_endless(gathered: Gathered) -> None:
    with pytest.raises(NotFoundError):
        gathered({"bentofile.yaml": "python: {requirements_txt: absent.txt}"})
    with pytest.raises(ConfigError, match="nested"):
        gathered({"bentofile.yaml": "python: {requirements_txt: r.txt}", "r.txt": "-r r.txt"})


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")
def test_the_runtime_asks_for_what_the_project_declares() -> None:
    import tomllib

    path = Path(__file__).parents[3] / "pyproject.toml"
    declared = [line.replace(" ", "") for line in tomllib.loads(path.read_text())["project"]["dependencies"]]
    for line in RUNTIME_REQUIREMENTS:
        assert line.replace(" ", "") in declared


def test_the_lean_list_is_a_part_of_what_litestar_declares() -> None:
    """A release of litestar that needs something new must not be locked without it."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    unused = {"click", "httpx", "litestar-htmx", "polyfactory", "rich", "rich-click"}
    env = {"extra": "", "python_version": "3.10", "python_full_version": "3.10.1"}
    declared = [Requirement(line) for line in requires("litestar") or ()]
    needed = {item.name.lower() for item in declared if not item.marker or item.marker.evaluate(env)}
    assert needed - unused == {Requirement(line).name for line in LITESTAR_NEEDS}
