"""The Dockerfile that is written reads back as what was meant, whatever the values hold."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentotool.errors import BuildError
from bentotool.images import distros
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
    """The file as a builder splits it: lines that do not go on, each an instruction and the rest."""
    assert not text.startswith("# syntax")
    found = []
    for line in text.split("\n"):
        assert line.isprintable()
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
            assert sum(word == "FROM" for word, _ in found) == 4
            for word, rest in found:
                if word == "RUN":
                    script = program(rest)
                    assert value not in script[2] or script[2] in {program(r)[2] for w, r in clean(plan) if w == "RUN"}
                if word in ("ENV", "LABEL") and "$PATH" not in rest:
                    pairs(rest)


def clean(plan: ImagePlan) -> list[tuple[str, str]]:
    """The instructions of a plan that asks for everything, with harmless values."""
    steps = ({"run": "true"}, {"script": "a.sh"}, {"system_packages": ["a"]})
    return instructions(recipe_text(Recipe(plan_of(steps=steps, from_source=("a",)))))


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
    assert distros.COMPILERS in text
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


def test_what_no_builder_does_is_said() -> None:
    with pytest.raises(BuildError, match="needs conda packages"):
        recipe_text(Recipe(plan_of(conda={"dependencies": ["ffmpeg"]})))
    with pytest.raises(BuildError, match="is no package"):
        recipe_text(Recipe(plan_of(steps=({"system_packages": ["-o=Dpkg::Pre-Invoke::=evil"]},))))
    with pytest.raises(BuildError, match="no image with CUDA for alpine"):
        base_of(plan_of(distro="alpine", cuda_version="12.6"))
