from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bentotool.build.config import BuildConfig, EnvConfig, ModelConfig
from bentotool.build.configfile import load_config
from bentotool.build.image import image_of
from bentotool.build.schema import read_table
from bentotool.errors import BentotoolError, ConfigError, NotFoundError, UnsafeError

Write = Callable[[dict[str, str]], Path]


def read(document: object) -> BuildConfig:
    return read_table(BuildConfig, document, ("bentofile.yaml",))


def test_every_key_of_bentoml_is_read() -> None:
    config = read(
        {
            "service": "service.py:Svc",
            "name": "iris",
            "description": "line one\nline two",
            "labels": {"team": "search", "tier": 2, "live": True},
            "include": ["*.py"],
            "exclude": ["tests/"],
            "python": {
                "packages": ["numpy>=2"],
                "lock_packages": True,
                "index_url": "https://packages.example/simple",
                "extra_index_url": ["https://more.example/simple"],
                "find_links": ["wheels"],
                "no_index": False,
                "trusted_host": ["packages.example"],
                "pack_git_packages": True,
                "is_src_layout": False,
                "wheels": [],
            },
            "docker": {"distro": "debian", "python_version": 3.11, "system_packages": ["libgomp1"], "env": ["A=b=c"]},
            "conda": None,
            "models": ["iris:latest", {"tag": "big", "alias": "llm"}],
            "envs": [{"name": "TOKEN"}, {"name": "DEPTH", "value": 3, "stage": "runtime"}],
            "args": {},
        }
    )
    assert config.labels == {"team": "search", "tier": "2", "live": "true"}
    assert config.models == (ModelConfig("iris:latest"), ModelConfig("big", "llm"))
    assert config.envs == (EnvConfig("TOKEN"), EnvConfig("DEPTH", "3", "runtime"))
    assert config.docker.env == {"A": "b=c"}
    assert config.docker.python_version == "3.11"


@pytest.mark.parametrize(
    ("document", "path", "hint"),
    [
        ({"servise": "a:B"}, [], "did you mean 'service'?"),
        ({"python": {"package": []}}, ["python"], "did you mean 'packages'?"),
        ({"docker": {"distro": "debain"}}, ["docker", "distro"], "did you mean 'debian'?"),
        ({"python": {"packages": "numpy", "version": 3.1}}, ["python", "version"], 'put it in quotes: "3.10"'),
        ({"python": {"packages": ["a", 3]}}, ["python", "packages", "1"], None),
        ({"labels": {"a": ["b"]}}, ["labels", "a"], None),
        ({"labels": ["a"]}, ["labels"], None),
        ({"include": {"a": 1}}, ["include"], None),
        ({"python": {"no_index": "yes"}}, ["python", "no_index"], None),
        ({"python": {"version": "2.7"}}, ["python", "version"], None),
        ({"envs": [{"value": "x"}]}, ["envs", "0", "name"], None),
        ({"models": [{"alias": "x"}]}, ["models", "0", "tag"], None),
        ({"name": "Not A Name"}, ["name"], None),
        ({"service": "no good:1"}, ["service"], None),
    ],
)
def test_a_wrong_key_is_named_with_its_path(document: object, path: list[str], hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        read(document)
    assert caught.value.path == ("bentofile.yaml", *path)
    if hint:
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("document", "instead"),
    [
        ({"python": {"pip_args": "--pre"}}, "requirements_txt"),
        ({"docker": {"dockerfile_template": "Dockerfile"}}, "setup_script"),
        ({"models": [{"tag": "a", "filter": "b"}]}, "tag"),
    ],
)
def test_a_key_that_would_be_ignored_is_an_error_with_the_way_out(document: object, instead: str) -> None:
    with pytest.raises(ConfigError, match="is not taken") as caught:
        read(document)
    assert instead in str(caught.value.hint)


def test_files_that_the_image_is_made_from_are_read(write: Write) -> None:
    project = write(
        {
            "service.py": "",
            "bentofile.yaml": """
docker: {env: image.env, setup_script: ./setup.sh, commands: [echo hi], distro: debian}
conda: {environment_yml: environment.yml, channels: [extra], dependencies: [scipy], pip: [tiny]}
""",
            "image.env": "# one\nA=1\nexport B='two words'\n\nC=\n",
            "setup.sh": "#!/bin/sh\n",
            "environment.yml": "name: x\nchannels: [conda-forge]\ndependencies: ['numpy>=2', {pip: [other]}]\n",
        }
    )
    config = load_config(project).config
    image = image_of(config)
    assert image == {
        "distro": "debian",
        "env": {"A": "1", "B": "two words", "C": ""},
        "steps": [{"run": "echo hi"}, {"script": "setup.sh"}],
        "conda": {"channels": ["conda-forge", "extra"], "dependencies": ["numpy>=2", "scipy"]},
    }
    assert config.conda.pip == ("other", "tiny")


@pytest.mark.parametrize(
    ("config", "files", "kind"),
    [
        ("docker: {env: none.env}", {}, NotFoundError),
        ("docker: {env: a.env}", {"a.env": "NO SIGN\n"}, ConfigError),
        ("docker: {env: a.env}", {"a.env": "A=\x1b\n"}, ConfigError),
        ("docker: {env: ../a.env}", {}, UnsafeError),
        ("docker: {setup_script: none.sh}", {}, NotFoundError),
        ("docker: {setup_script: /etc/passwd}", {}, UnsafeError),
        ("conda: {environment_yml: e.yml}", {"e.yml": "dependencies: {a: 1}\n"}, ConfigError),
        ("conda: {environment_yml: e.yml}", {"e.yml": "dependencies: ['a; rm']\n"}, ConfigError),
        ("conda: {environment_yml: e.yml}", {"e.yml": "- a\n"}, ConfigError),
        ("conda: {environment_yml: e.yml}", {"e.yml": "a: !!python/object:os.system {}\n"}, ConfigError),
        ("python: {is_src_layout: true}", {}, ConfigError),
    ],
)
def test_a_wrong_file_of_the_image_is_named(
    write: Write, config: str, files: dict[str, str], kind: type[BentotoolError]
) -> None:
    with pytest.raises(kind):
        load_config(write({"service.py": "", "bentofile.yaml": config + "\n", **files}))


def fields_with(value: str) -> list[dict[str, Any]]:
    """Every string field of the configuration, each holding ``value``."""
    texts = ("packages", "extra_index_url", "find_links", "trusted_host", "wheels")
    docker = ("distro", "base_image", "python_version", "cuda_version", "setup_script", "dockerfile_template")
    return [
        *({key: value} for key in ("service", "name", "version")),
        *({"python": {key: value}} for key in ("version", "requirements_txt", "index_url", "pip_args")),
        *({"python": {key: [value]}} for key in texts),
        *({"docker": {key: value}} for key in docker),
        *({"conda": {key: [value]}} for key in ("channels", "dependencies", "pip")),
        {"docker": {"system_packages": [value]}},
        {"docker": {"env": {value: "x"}}},
        {"docker": {"env": {"x": value}}},
        {"docker": {"env": [f"x={value}"]}},
        {"labels": {value: "x"}},
        {"labels": {"x": value}},
        {"include": [value]},
        {"exclude": [value]},
        {"models": [value]},
        {"models": [{"tag": "x", "alias": value}]},
        {"envs": [{"name": value}]},
        {"envs": [{"name": "x", "value": value}]},
        {"envs": [{"name": "x", "stage": value}]},
        {"args": {"x": value}},
        {"conda": {"environment_yml": value}},
    ]


def test_no_field_takes_a_control_character(corpus: ModuleType) -> None:
    for value in corpus.CONTROL_CHARACTERS:
        for document in fields_with(value):
            with pytest.raises(ConfigError):
                read(document)
    for value in set(corpus.CONTROL_CHARACTERS) - {"a\nb"}:
        with pytest.raises(ConfigError):
            read({"description": value})


def test_names_take_nothing_a_shell_acts_on(corpus: ModuleType) -> None:
    for value in corpus.SHELL:
        for document in (
            {"name": value},
            {"version": value},
            {"service": value},
            {"models": [value]},
            {"labels": {value: "x"}},
            {"envs": [{"name": value}]},
            {"docker": {"base_image": value}},
            {"docker": {"system_packages": [value]}},
        ):
            with pytest.raises(ConfigError):
                read(document)


def test_the_first_file_found_wins(write: Write) -> None:
    pyproject = '[tool.bentotool]\nname = "own"\n[tool.bentoml.build]\nname = "theirs"\n'
    folder = write({"service.py": "", "pyproject.toml": pyproject, "bentofile.yaml": "name: yaml"})
    assert load_config(folder).config.name == "yaml"
    (folder / "bentofile.yaml").unlink()
    assert load_config(folder).config.name == "own"
    write({"pyproject.toml": '[tool.bentoml.build]\nname = "theirs"\n'})
    assert load_config(folder).config.name == "theirs"
    write({"other.yaml": "name: other"})
    assert load_config(folder, "other.yaml").config.name == "other"
    assert load_config(folder, str(folder / "other.yaml")).config.name == "other"
    (folder.parent / "outside.yaml").write_text("name: outside")
    for outside in ("../outside.yaml", str(folder.parent / "outside.yaml")):
        with pytest.raises(UnsafeError):
            load_config(folder, outside)


def test_without_a_file_service_py_is_built(write: Write) -> None:
    project = load_config(write({"service.py": ""}))
    assert (project.config.service, project.origin, project.python) == ("service", "", "3.12")


def test_pyproject_gives_name_and_dependencies(write: Write) -> None:
    text = '[project]\nname = "My_Iris"\ndependencies = ["attrs", "six"]\n[tool.bentotool]\nservice = "service:Svc"\n'
    project = load_config(write({"pyproject.toml": text}))
    assert (project.config.name, project.dependencies) == ("my_iris", ("attrs", "six"))


@pytest.mark.parametrize(
    ("files", "python"),
    [
        ({"bentofile.yaml": "python: {version: '3.11'}\ndocker: {python_version: '3.13'}"}, "3.11"),
        ({"bentofile.yaml": "docker: {python_version: 3.13.2}"}, "3.13"),
        ({".python-version": "3.10.4\n"}, "3.10"),
        ({}, "3.12"),
    ],
)
def test_python_of_the_bento_never_depends_on_the_interpreter(write: Write, files: dict[str, str], python: str) -> None:
    assert load_config(write({"service.py": "", **files})).python == python


def test_description_from_a_file_inside_only(write: Write, tmp_path: Path, corpus: ModuleType) -> None:
    (tmp_path / "secret").write_text("canary")
    folder = write({"service.py": "", "README.md": "# Iris\n", "bentofile.yaml": "description: 'file:./README.md'"})
    assert load_config(folder).config.description == "# Iris\n"
    for path in corpus.PATHS:
        write({"bentofile.yaml": f"description: {('file:' + path)!r}".replace("\\x00", "x")})
        with pytest.raises(BentotoolError) as caught:
            load_config(folder)
        assert "canary" not in caught.value.message
    (folder / "link.md").symlink_to(tmp_path / "secret")
    write({"bentofile.yaml": "description: 'file:link.md'"})
    with pytest.raises(UnsafeError):
        load_config(folder)


MULTIPLYING = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n" for below, name in ("ab", "bc", "cd", "de")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        ("name: a\nname: b", "stands twice"),
        ("- a", "expected a table, got a list"),
        ("labels: &a {b: *a}", "contains itself"),
        ("x: !!python/object/apply:os.system [id]", "not YAML"),
        ("[" * 3000, "not YAML"),
        (MULTIPLYING, "more than"),
        ("#" * (2 << 20), "larger than"),
    ],
)
def test_a_file_that_is_no_configuration(write: Write, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write({"bentofile.yaml": content}))
    assert "\n" not in caught.value.message


def test_not_text_not_toml_not_there(write: Write, tmp_path: Path) -> None:
    folder = write({"pyproject.toml": "[tool"})
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(folder)
    (folder / "bentofile.yaml").write_bytes(b"\xff\xfe")
    (folder / "pyproject.toml").unlink()
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(folder)
    with pytest.raises(NotFoundError):
        load_config(folder, "absent.yaml")
    with pytest.raises(NotFoundError):
        load_config(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match=r"no service\.py"):
        load_config(write({"README.md": ""}).parent)


def test_the_command_line_is_checked_as_the_file_is() -> None:
    config = read({"name": "a", "labels": {"x": "1", "y": "1"}})
    assert config.override(name="b", version="1", labels={"x": "2"}).labels == {"x": "2", "y": "1"}
    for bad in ({"name": "../x"}, {"version": "a b"}, {"labels": {"x": "a\nb"}}):
        with pytest.raises(ConfigError):
            config.override(**bad)  # type: ignore[arg-type]
