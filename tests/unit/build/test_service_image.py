"""What a service's ``image=`` becomes: checked like the configuration, and joined with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bentotool.build.bentos import BentoStore
from bentotool.build.config import BuildConfig, DockerConfig
from bentotool.build.configfile import ProjectConfig, load_config
from bentotool.build.image import image_of
from bentotool.build.probe import Probe
from bentotool.build.requirements import gather
from bentotool.build.serviceimage import check_image_files, read_service_image, with_image
from bentotool.errors import BentotoolError, ConfigError, NotFoundError, UnsafeError
from bentotool.images import Image, PythonImage

Write = Callable[[dict[str, str]], Path]


def test_steps_keep_their_order_around_the_python_packages() -> None:
    image = (
        Image(distro="debian", python_version="3.11", commands=["echo first"], post_commands=["echo early"])
        .run("add-repository x")
        .system_packages("git", "curl")
        .run_script("setup.sh")
        .requirements_file("requirements.txt")
        .python_packages("tiny", "fakestar>=2")
        .run("echo after")
        .system_packages("late")
        .build_include("data", "setup.sh")
    )
    assert image.to_dict() == {
        "distro": "debian",
        "python_version": "3.11",
        "steps": [
            {"run": "echo first"}, {"run": "add-repository x"}, {"system_packages": ["git", "curl"]},
            {"script": "setup.sh"},
        ],
        "python": [{"file": "requirements.txt"}, {"package": "tiny"}, {"package": "fakestar>=2"}],
        "post_steps": [{"run": "echo early"}, {"run": "echo after"}, {"system_packages": ["late"]}],
        "build_include": ["data", "setup.sh"],
    }  # fmt: skip
    assert PythonImage is Image
    assert Image().to_dict() == {}
    assert Image(python_requirements="# one\n tiny \n\nother\n").to_dict() == {
        "python": [{"package": "tiny"}, {"package": "other"}]
    }
    assert Image().uv_lock().run("x").to_dict() == {"uv_lock": True, "post_steps": [{"run": "x"}]}
    assert Image().pyproject_toml().to_dict() == {"python": [{"pyproject": "pyproject.toml"}]}
    assert read_service_image(image.to_dict()).scripts == ("setup.sh",)


@pytest.mark.parametrize(
    "wrong", [lambda: Image(base_image=3), lambda: Image().run(None), lambda: Image(commands="echo")]
)  # type: ignore[arg-type]
def test_a_wrong_type_is_said_where_the_image_is_made(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        wrong()


def test_nothing_is_lost_when_the_configuration_says_more() -> None:
    said = Image("python:3.11", distro="alpine").run("echo service").run_script("a.sh").python_packages("x").run("end")
    docker = DockerConfig(
        base_image="debian:12", python_version="3.12", system_packages=("git",), commands=("echo config",),
        post_commands=("echo last",), setup_script="b.sh", env={"A": "1"},
    )  # fmt: skip
    joined = image_of(replace(BuildConfig(), docker=docker), read_service_image(said.build_include("d").to_dict()))
    assert joined == {
        "distro": "alpine",
        "base_image": "debian:12",
        "env": {"A": "1"},
        "steps": [
            {"run": "echo service"}, {"script": "a.sh"}, {"system_packages": ["git"]}, {"run": "echo config"},
            {"script": "b.sh"},
        ],
        "post_steps": [{"run": "end"}, {"run": "echo last"}],
        "build_include": ["d"],
    }  # fmt: skip


def fields_with(value: str) -> list[dict[str, Any]]:
    """Every text of an image, each holding ``value``."""
    return [
        {"base_image": value}, {"distro": value}, {"python_version": value},
        *({at: [step]} for at in ("steps", "post_steps")
          for step in ({"run": value}, {"script": value}, {"system_packages": [value]})),
        {"python": [{"package": value}]}, {"python": [{"file": value}]}, {"python": [{"pyproject": value}]},
        {"build_include": [value]}, {value: "x"},
    ]  # fmt: skip


def test_no_field_takes_a_control_character(corpus: ModuleType) -> None:
    for value in corpus.CONTROL_CHARACTERS:
        for document in fields_with(value):
            with pytest.raises(ConfigError):
                read_service_image(document)


def test_no_name_holds_what_a_shell_acts_on(corpus: ModuleType) -> None:
    for value in corpus.SHELL:
        for document in ({"base_image": value}, {"distro": value}, {"steps": [{"system_packages": [value]}]}):
            with pytest.raises(ConfigError):
                read_service_image(document)


def taken(project: ProjectConfig, document: dict[str, Any]) -> None:
    """All that a build does with the paths of an image."""
    image = read_service_image(document)
    check_image_files(project.config, image, [])
    gather(with_image(project, image), ())


def test_no_path_leads_out(corpus: ModuleType, project: Path) -> None:
    (project.parent / "secret").write_text("canary")
    loaded = load_config(project)
    for value in corpus.PATHS:
        for document in (
            {"steps": [{"script": value}]}, {"python": [{"file": value}]}, {"python": [{"pyproject": value}]},
            {"build_include": [value]},
        ):  # fmt: skip
            with pytest.raises(BentotoolError) as caught:
                taken(loaded, document)
            assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [3, {"steps": [{}]}, {"steps": [{"run": "a", "script": "b"}]}, {"python": ["x"]}, {"uv_lock": "yes"}, {"bas": "x"}],
)
def test_what_is_no_image(document: Any) -> None:
    with pytest.raises(ConfigError):
        read_service_image(document)


def probe(image: Any) -> Probe:
    return Probe("service:Iris", "iris", image=image.to_dict() if isinstance(image, Image) else image)


def test_a_bento_is_built_with_the_packages_and_python_of_the_image(project: Path, builder: Any) -> None:
    config = (project / "bentofile.yaml").read_text().replace("  packages: [tiny]\n", "")
    (project / "bentofile.yaml").write_text(config)
    (project / "needs").mkdir()
    (project / "needs" / "base.txt").write_text("tinydep\n")
    (project / "needs" / "all.txt").write_text("-r base.txt\n")
    (project / "setup.sh").write_text("#!/bin/sh\n")
    image = Image(python_version="3.11").run_script("./setup.sh").python_packages("tiny<2").build_include("lib")
    builder.probe = probe(image.requirements_file("needs/all.txt"))
    result = builder(project)
    pins = {pin.partition("==")[0]: pin.partition("==")[2] for pin in result.plan.lock.pins}
    assert pins == {"tiny": "1.0", "tinydep": "1.5", "fakestar": "2.1"}
    assert result.plan.python == "3.11"
    bento = BentoStore(builder.layout).get("iris")
    assert bento.config["image"] == {"steps": [{"script": "setup.sh"}], "build_include": ["lib"]}
    assert json.loads(json.dumps(bento.config))["python"] == "3.11"

    (project / "bentofile.yaml").write_text(config.replace("python:\n", "python:\n  version: '3.12'\n"))
    assert builder(project).plan.python == "3.12", "the configuration decides"


@pytest.mark.parametrize(
    ("image", "config", "kind"),
    [
        (Image().run_script("none.sh"), "", NotFoundError),
        (Image().run_script("/etc/passwd"), "", UnsafeError),
        (Image().run_script("link.sh"), "", UnsafeError),
        (Image().requirements_file("../r.txt"), "", UnsafeError),
        (Image().requirements_file("none.txt"), "", NotFoundError),
        (Image().pyproject_toml("none.toml"), "", NotFoundError),
        (Image().run_script("lib/more.py"), "exclude: [lib/]\n", ConfigError),
        (Image().build_include("nowhere"), "", ConfigError),
        (None, "docker: {setup_script: lib/more.py}\nexclude: [lib/]\n", ConfigError),
        (Image().uv_lock(), "", NotFoundError),
    ],
)
def test_a_wrong_file_of_the_image(
    project: Path, builder: Any, image: Any, config: str, kind: type[Exception], tmp_path: Path
) -> None:
    (tmp_path / "outside.sh").write_text("x")
    if image is not None and "link.sh" in str(image):
        (project / "link.sh").symlink_to(tmp_path / "outside.sh")
    with (project / "bentofile.yaml").open("a") as file:
        file.write(config)
    builder.probe = probe(image)
    with pytest.raises(kind):
        builder(project, dry_run=True)
