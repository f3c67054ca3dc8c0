"""init, doctor, config show."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bentotool.cli.formats import count


def test_init_makes_a_project_and_says_what_next(cli, tmp_path: Path) -> None:
    outcome = cli("init", str(tmp_path / "p"))
    assert outcome.status == 0
    assert (tmp_path / "p" / "service.py").is_file()
    assert f"  cd {tmp_path / 'p'}" in outcome.out
    assert "  bentotool model import iris.onnx --name iris" in outcome.out


def test_init_in_the_current_folder(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = json.loads(cli("init", "--json").out)
    assert document["path"] == str(tmp_path)
    assert "service.py" in document["files"]
    assert "tests/test_service.py" in document["files"]


def test_init_twice_refuses(cli, tmp_path: Path) -> None:
    cli("init", str(tmp_path))
    outcome = cli("init", str(tmp_path))
    assert outcome.status == 1
    assert "would be overwritten" in outcome.err


def test_init_list(cli) -> None:
    assert [entry["name"] for entry in json.loads(cli("init", "--list", "--json").out)][:1] == ["quickstart"]
    assert "quickstart" in cli("init", "--list").out


def test_init_with_an_unknown_template(cli, tmp_path: Path) -> None:
    outcome = cli("init", str(tmp_path / "p"), "--template", "nope")
    assert outcome.status == 3
    assert "quickstart" in outcome.err
    assert not (tmp_path / "p").exists()


def test_doctor_is_content_and_makes_nothing(cli, store: Path) -> None:
    outcome = cli("doctor", "--json")
    document = json.loads(outcome.out)
    assert outcome.status == 0
    assert document["ok"]
    assert {"bentotool", "python", "store", "uv"} <= {check["check"] for check in document["checks"]}
    assert not store.exists()


def test_doctor_finds_a_store_that_is_a_file(cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = cli("doctor", "--store", str(tmp_path / "file"))
    assert outcome.status == 1
    assert "broken" in outcome.out


def test_config_show_says_where_a_value_comes_from(cli, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_DISABLE_PLUGINS", "b, a")
    document = json.loads(cli("config", "show", "--origin", "--json", "--no-color").out)
    assert document["store"] == {"value": str(store), "origin": "BENTOTOOL_STORE"}
    assert document["disabled-plugins"] == {"value": ["a", "b"], "origin": "BENTOTOOL_DISABLE_PLUGINS"}
    assert document["color"] == {"value": False, "origin": "--no-color"}
    assert "ORIGIN" not in cli("config", "show").out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_pipe_is_no_model(cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    outcome = cli("model", "import", str(tmp_path / "pipe"))
    assert outcome.status == 6
    assert f"{tmp_path / 'pipe'} is not a regular file or folder" in outcome.err


@pytest.mark.parametrize(("number", "said"), [(0, "0 models"), (1, "1 model"), (2, "2 models")])
def test_counting(number: int, said: str) -> None:
    assert count(number, "model") == said
