"""The Dockerfile that is written reads back as what was meant, whatever the values hold."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentotool.errors import BuildError
from bentotool.images import buildscripts, distros
from bentotool.images import dockerfile as df
from bentotool.images.recipe import Recipe, base_of, recipe_text, script_names
from bentotool.imagespec import ImagePlan, PlannedLayer

_PATH = Path(__file__).parents[2] / "security" / "corpus.py"
_SPEC = importlib.util.spec_from_file_location("corpus", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
corpus: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(corpus)

HOSTILE = (*corpus.SHELL, *corpus.PATHS, "<<EOF", "a <<EOF", "a\nRUN evil", "# syntax=evil", "\\", '\\"', '"]', "$HOME")
WORDS = ("RUN", "ENV", "LABEL", "USER", "FROM", "COPY", "ENTRYPOINT", "HEALTHCHECK", "EXPOSE", "WORKDIR", "STOPSIGNAL")


def plan_of(**changes: Any) -> ImagePlan:
    values: dict[str, Any] = {
        "name": "iris",
        "version": "1",
        "digest": "sha256:" + "0" * 64,
        "service": "service:Iris",
        "platform": "linux/amd64",
        "python": "3.11",
        "locked_for": "linux/amd64",
        "base": "docker.io/library/python:3.11-slim",
        "base_from": "default",
        "prefix": "/opt/bentotool/env",
        "env": {"PORT": "3000"},
        "user": "65532:65532",
        "workdir": "/home/bento/app",
        "entrypoint": ("/opt/bentotool/env/bin/python", "-m", "bentotool.runtime", "/home/bento"),
        "healthcheck": ("/opt/bentotool/env/bin/python", "-m", "bentotool.runtime.healthcheck"),
        "port": 3000,
        "labels": {"team": "flowers"},
        "layers": (PlannedLayer("python", "python environment", "sha256:" + "1" * 64),),
    }
    return ImagePlan(**{**values, **changes})


def instructions(text: str) -> list[tuple[str, str]]:
    """The file as a builder splits it: instructions, each its word and the rest; only scripts have several lines."""
    assert not text.startswith("# syntax")
    found = []
    for line in text.split("\n"):
        assert line.isprintable()
    for line in re.sub(r'("|\\n)\\\n', r"\1", text).split("\n"):
        assert not line.endswith("\\")
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            assert word in WORDS, line
            found.append((word, rest))
    return found


def pairs(text: str) -> dict[str, str]:
    """``ENV`` and ``LABEL`` as a builder reads words in double quotes."""
    found, position = [], 0
    word, quoted = "", False
    while position <= len(text):
        char = text[position : position + 1]
        if not quoted and char in ("", " "):
            found.append(word)
            word = ""
        elif char == '"':
            quoted = not quoted
        elif char == "\\":
            position += 1
            assert text[position] in '\\"$'
            word += text[position]
        else:
            assert char != "$", "a variable would be put in"
            word += char
        position += 1
    assert not quoted
    return {name: value for name, _, value in (each.partition("=") for each in found if each)}


def program(rest: str) -> list[str]:
    while rest.startswith("--"):
        _, _, rest = rest.partition(" ")
    assert "<" not in rest
    found: list[str] = json.loads(rest)
    return found


@pytest.mark.parametrize("value", [*HOSTILE, *corpus.CONTROL_CHARACTERS])
def test_no_value_adds_an_instruction_or_a_word(value: str) -> None:
    cases: list[tuple[df.Instruction, Any]] = [
        (df.Run(("/bin/sh", "-c", value)), lambda rest: program(rest) == ["/bin/sh", "-c", value]),
        (df.Run((value,), script="x\ny"), lambda rest: program(rest)[-1] == value),
        (df.Env({"A": value}), lambda rest: pairs(rest) == {"A": value}),
        (df.Label({"a": value}), lambda rest: pairs(rest) == {"a": value}),
        (df.Entrypoint((value,)), lambda rest: program(rest) == [value]),
    ]
    for instruction, same in cases:
        try:
            text = df.dockerfile_text([df.From("base", "one"), instruction])
        except BuildError:
            assert not value.isprintable()
            continue
        (_, rest) = instructions(text)[1]
        assert len(instructions(text)) == 2
        assert same(rest), text


@given(st.text())
def test_any_text_is_refused_or_reads_back(value: str) -> None:
    try:
        text = df.dockerfile_text([df.From("base", "one"), df.Env({"A": value}), df.Run(("x", value))])
    except BuildError:
        return
    (_, env), (_, run) = instructions(text)[1:]
    assert pairs(env) == {"A": value}
    assert program(run) == ["x", value]


@pytest.mark.parametrize("value", [*HOSTILE, *corpus.CONTROL_CHARACTERS, "", "--platform=x", "a b"])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: df.From(value, "one"),
        lambda value: df.From("base", value),
        lambda value: df.Copy("a", "/b", value),
        lambda value: df.Copy("a", "/b", mode=value),
        lambda value: df.Env({value: "1"}),
        lambda value: df.User(value),
        lambda value: df.StopSignal(value),
        lambda value: df.Run(("x",), (df.Mount("secret", {"id": value}),)),
    ],
)
def test_what_stands_bare_has_to_match(make: Any, value: str) -> None:
    if value == "" and isinstance(make(value), df.Copy):
        return  # no origin, no mode
    try:
        line = make(value).line()
    except BuildError:
        return
    assert not set(value) & set(" \n\r\\$\"'`;&|<>(){}#,=~"), line


@pytest.mark.parametrize("value", [*HOSTILE, *corpus.CONTROL_CHARACTERS])
def test_every_field_of_a_plan(value: str) -> None:
    fields: list[dict[str, Any]] = [
        {"base": value, "base_from": "option"},
        {"env": {"A": value}},
        {"env": {value: "1"}},
        {"labels": {"a": value}},
        {"labels": {value: "a"}},
        {"name": value},
        {"version": value},
        {"workdir": value, "build_include": ("a",)},
        {"user": value},
        {"steps": ({"run": value},)},
        {"steps": ({"script": value},)},
        {"steps": ({"system_packages": [value]},)},
        {"post_steps": ({"run": value},)},
        {"distro": value},
        {"cuda_version": value},
        {"python": value},
        {"from_source": (value,)},
        {"stop_signal": value},
        {"conda": {"dependencies": [value]}},
        {"conda": {"dependencies": ["gdal"], "channels": [value]}},
        {"build_env": {"TOKEN": value}, "steps": ({"run": "true"},)},
        {"build_env": {value: "token"}, "steps": ({"run": "true"},)},
    ]
    for changes in fields:
        plan = plan_of(**changes)
        for mounts in (True, False):
            try:
                text = recipe_text(Recipe(plan, mounts=mounts, link=mounts, whole=True, models=("models/iris",)))
            except BuildError:
                continue
            found = instructions(text)
            assert [word for word, _ in found][-1] == "ENTRYPOINT"
            assert sum(word == "FROM" for word, _ in found) == 4 + bool(plan.conda)
            for word, rest in found:
                if word == "RUN":
                    script = program(rest)
                    assert script[2] in SCRIPTS
                if word in ("ENV", "LABEL") and "$PATH" not in rest:
                    pairs(rest)


def plain(script: str) -> str:
    """A script as a Dockerfile has it: without lines that a builder would drop."""
    return "\n".join(each for each in script.splitlines() if each.strip() and not each.lstrip().startswith("#"))


SCRIPTS = {plain(getattr(buildscripts, name)) for name in ("CONDA", "ENTER", "ENVIRONMENT", "INSTALL")}


def test_stages_in_their_order() -> None:
    plan = plan_of(
        steps=({"system_packages": ["libgomp1"]}, {"run": "echo a > /a"}, {"script": "setup/one.sh"}),
        post_steps=({"run": "echo b > /b"},),
    )
    found = instructions(recipe_text(Recipe(plan, whole=True, models=("models/iris",))))
    shown = [word + " " + (rest if word == "FROM" else "") for word, rest in found]
    assert [each.strip() for each in shown if each.startswith(("FROM", "RUN", "COPY"))] == [
        "FROM docker.io/library/python:3.11-slim AS system",
        "RUN",
        "RUN",
        "RUN",
        "FROM system AS packages",
        "RUN",
        "FROM system AS environment",
        "COPY",
        "RUN",
        "FROM environment AS image",
        "COPY",
        "COPY",
        "COPY",
    ]
    runs = [program(rest) for word, rest in found if word == "RUN"]
    assert runs[0][-1] == "libgomp1"
    assert runs[1][-3:] == ["/bin/sh", "-c", "echo a > /a"]
    assert runs[2][-1] == "/opt/bentotool/scripts/before-2"
    assert script_names(plan) == {"before-2": "setup/one.sh"}
    assert ("USER", "65532:65532") in found
    assert json.loads(found[-1][1]) == list(plan.entrypoint)


def test_without_mounts_and_links() -> None:
    plan = plan_of(steps=({"script": "one.sh"},), from_source=("x",))
    text = recipe_text(Recipe(plan, mounts=False, link=False, whole=True, models=("models/iris",)))
    assert "--mount" not in text
    assert "--link" not in text
    assert f'"{distros.COMPILERS}"]' in text
    assert "--only-binary" not in text


def test_offline_nothing_has_a_network() -> None:
    text = recipe_text(Recipe(plan_of(steps=({"run": "true"},)), offline=True))
    runs = [rest for word, rest in instructions(text) if word == "RUN"]
    assert len(runs) == 2
    assert all("--network=none" in rest for rest in runs)
    assert '"--offline"' in runs[1]


@pytest.mark.parametrize(
    ("distro", "cuda", "base"),
    [
        ("", "", "docker.io/library/python:3.11-slim"),
        ("alpine", "", "docker.io/library/python:3.11-alpine"),
        ("ubi9", "", "registry.access.redhat.com/ubi9/python-311:latest"),
        ("amazonlinux", "", "docker.io/library/amazonlinux:2023"),
        ("wolfi", "", "cgr.dev/chainguard/wolfi-base:latest"),
        ("", "11.6", "docker.io/nvidia/cuda:11.6.2-cudnn8-runtime-ubuntu20.04"),
        ("", "12.6", "docker.io/nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04"),
        ("ubi8", "11.8", "docker.io/nvidia/cuda:11.8.0-cudnn8-runtime-ubi8"),
    ],
)
def test_base_by_distribution(distro: str, cuda: str, base: str) -> None:
    plan = plan_of(distro=distro, cuda_version=cuda)
    assert base_of(plan) == base
    text = recipe_text(Recipe(plan))
    assert f"FROM {base} AS system" in text
    assert ('"managed"' in text) == bool(cuda)
    assert ("/opt/python" in text.partition("AS environment")[2]) == bool(cuda)


@pytest.mark.parametrize("version", ["13", "12.8.", "x", "1.2.3.4", "12.8.1-evil", "٣.٣.٣"])
def test_an_odd_cuda_version_is_refused(version: str) -> None:
    with pytest.raises(BuildError, match="CUDA"):
        base_of(plan_of(cuda_version=version))


@pytest.mark.parametrize("distro", ["ubuntu", "ubi8", "ubi9", "amazonlinux"])
def test_a_python_that_a_distribution_lacks_is_brought(distro: str) -> None:
    has, lacks = (recipe_text(Recipe(plan_of(distro=distro, python=python))) for python in ("3.12", "3.10"))
    assert '"managed"' not in has
    assert '"managed"' in lacks
    assert "/opt/python" in lacks.partition("AS environment")[2]


@pytest.mark.parametrize(
    ("distro", "packages"),
    [
        ("ubuntu", ["python3.12", "python3.12-dev"]),
        ("amazonlinux", ["python3.12", "python3.12-devel"]),
        ("wolfi", ["python-3.12", "python-3.12-dev"]),
        ("debian", []),
        ("alpine", []),
    ],
)
def test_packages_with_python_and_its_headers(distro: str, packages: list[str]) -> None:
    plan = plan_of(distro=distro, python="3.12", from_source=("x",))
    runs = [program(rest) for word, rest in instructions(recipe_text(Recipe(plan))) if word == "RUN"]
    asked = [run[4:] for run in runs if run[2] == plain(buildscripts.INSTALL)]
    assert asked == [*([packages[:1]] if packages else []), [distros.COMPILERS, *packages[1:]]]


def test_conda_in_a_stage_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(conda={"dependencies": ["gdal>=3", "python=3.11.4"]}, cuda_version="12.6")
    found = instructions(recipe_text(Recipe(plan)))
    assert found[0] == ("FROM", "docker.io/mambaorg/micromamba:2.3.2 AS conda")
    run = next(rest for word, rest in found if word == "RUN")
    assert "id=bentotool-conda,sharing=locked" in run
    assert program(run)[3:] == [
        "bentotool", "/opt/bentotool/conda", "12.6", "--channel", "conda-forge", "--override-channels",
        "python=3.11", "gdal>=3", "python=3.11.4",
    ]  # fmt: skip
    assert ("COPY", '--link --from=conda ["/opt/bentotool/conda", "/opt/bentotool/conda"]') in found
    assert not any('"managed"' in rest for _, rest in found)
    monkeypatch.setenv("BENTOTOOL_CONDA_IMAGE", "registry.example/miniforge3:25")
    plan = plan_of(conda={"dependencies": ["gdal"], "channels": ["defaults", "https://conda.example/t/x/main"]})
    found = instructions(recipe_text(Recipe(plan, mounts=False, link=False, offline=True)))
    assert found[0] == ("FROM", "registry.example/miniforge3:25 AS conda")
    words = program(next(rest for word, rest in found if word == "RUN"))
    assert words[6:] == [
        "--channel", "defaults", "--channel", "https://conda.example/t/x/main", "--override-channels", "--offline",
        "python=3.11", "gdal",
    ]  # fmt: skip


def test_variables_of_steps_are_secrets() -> None:
    steps: Any = ({"run": "true"}, {"system_packages": ["a"]}, {"script": "a.sh"})
    texts = [
        recipe_text(Recipe(plan_of(steps=steps, build_env={"TOKEN": "", "MODE": value}, build_only=("TOKEN",))))
        for value in ("canary", "another")
    ]
    assert "canary" not in texts[0]
    runs = [rest for word, rest in instructions(texts[0]) if word == "RUN"]
    assert len(runs) == 4
    assert all("--mount=type=secret,id=bentotool-env" in rest for rest in runs)
    assert texts[0] != texts[1]  # a value that the Bento has decides what is made
    assert "bentotool-env" not in recipe_text(Recipe(plan_of(steps=steps))).replace("/run/secrets/bentotool-env", "")


def test_what_no_builder_does_is_said() -> None:
    with pytest.raises(BuildError, match="do not run on alpine"):
        recipe_text(Recipe(plan_of(conda={"dependencies": ["ffmpeg"]}, distro="alpine")))
    with pytest.raises(BuildError, match="is no conda package"):
        recipe_text(Recipe(plan_of(conda={"dependencies": ["--file=/etc/shadow"]})))
    with pytest.raises(BuildError, match="is no package"):
        recipe_text(Recipe(plan_of(steps=({"system_packages": ["-o=Dpkg::Pre-Invoke::=evil"]},))))
    with pytest.raises(BuildError, match="no image with CUDA for alpine"):
        base_of(plan_of(distro="alpine", cuda_version="12.6"))
