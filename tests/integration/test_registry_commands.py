"""push, pull, login and logout as a user types them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref, RefStore


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """``run("pull", …)`` gives the exit status and the JSON document: the result, or the error."""

    def call(*arguments: str) -> tuple[int, Any]:
        status = main([*arguments, "--json"])
        printed = capsys.readouterr()
        assert bool(printed.out) == (status == 0), printed
        return status, json.loads(printed.out or printed.err)

    return call


@pytest.fixture
def login_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_bento_goes_out_and_comes_back(
    real_registry: Any,
    run: Callable[..., tuple[int, Any]],
    make_model: Callable[..., StoredModel],
    make_bento: Callable[..., Ref],
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path / "a")
    bento = make_bento(layout, [make_model(layout)])
    remote = f"{real_registry.host}/commands/bento:v1"
    status, pushed = run("push", "svc:latest", remote, "--store", str(layout.root))
    assert status == 0
    expected = {
        "kind": "bento",
        "name": "svc",
        "version": "7",
        "tag": "svc:7",
        "digest": bento.digest,
        "remote": remote,
    }
    assert expected.items() <= pushed.items()
    assert pushed["sent"] > 0
    assert pushed["models"] == ["iris:1"]
    status, pulled = run("pull", remote, "--store", str(tmp_path / "b"))
    assert status == 0
    assert {**expected, "index": pushed["index"], "size": pushed["size"]}.items() <= pulled.items()
    status, again = run("pull", remote, "--store", str(tmp_path / "b"))
    assert (status, again["fetched"]) == (0, 0)
    assert RefStore(Layout(tmp_path / "b")).get("bentos", "svc").digest == bento.digest
    status, renamed = run("pull", remote, "--as", "other", "--store", str(tmp_path / "b"))
    assert (status, renamed["tag"], renamed["digest"]) == (0, "other:7", bento.digest)


def test_a_model_goes_out_and_comes_back(
    real_registry: Any,
    run: Callable[..., tuple[int, Any]],
    make_model: Callable[..., StoredModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(Layout(tmp_path / "a"))
    monkeypatch.setenv("BENTOTOOL_REGISTRY", f"{real_registry.host}/commands/models/")
    status, pushed = run("model", "push", "iris", "--store", str(tmp_path / "a"))
    assert status == 0
    assert pushed["remote"] == f"{real_registry.host}/commands/models/iris:1"
    assert "index" not in pushed
    status, same = run("push", "iris", "--store", str(tmp_path / "a"))
    assert (status, same["kind"], same["sent"]) == (0, "model", 0)
    status, pulled = run("model", "pull", pushed["remote"], "--store", str(tmp_path / "b"))
    assert (status, pulled["digest"], pulled["tag"]) == (0, model.digest, "iris:1")


def test_what_went_wrong_is_told_by_the_exit_status(
    real_registry: Any,
    run: Callable[..., tuple[int, Any]],
    make_model: Callable[..., StoredModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BENTOTOOL_REGISTRY", raising=False)
    make_model(Layout(tmp_path / "a"))
    store = ("--store", str(tmp_path / "a"))
    assert run("push", "nothing", f"{real_registry.host}/x:1", *store)[0] == 3
    assert run("pull", f"{real_registry.host}/commands/none:1", *store)[0] == 3
    assert run("push", "iris", *store)[0] == 2
    assert run("push", "iris", f"{real_registry.host}/Bad Name", *store)[0] == 2
    assert run("pull", f"{real_registry.host}/x@sha256:12", *store)[0] == 2
    status, error = run("pull", "127.0.0.1:1/x:1", *store)
    assert status == 5
    assert error["error"]["message"] == "registry 127.0.0.1:1 did not answer: nothing listens there"


def test_login_is_checked_kept_used_and_forgotten(
    locked_registry: Any,
    run: Callable[..., tuple[int, Any]],
    make_model: Callable[..., StoredModel],
    login_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, store = locked_registry.host, ("--store", str(tmp_path / "a"))
    make_model(Layout(tmp_path / "a"))
    stdin(monkeypatch, "wrong\n")
    status, error = run("login", host, "-u", "ada", "--password-stdin")
    assert (status, error["error"]["code"]) == (5, "authentication")
    assert not login_files.exists()
    assert run("push", "iris", f"{host}/x:1", *store)[0] == 5

    stdin(monkeypatch, locked_registry.password + "\n")
    status, done = run("login", host, "-u", "ada", "--password-stdin")
    assert (status, done["registry"], done["stored"]) == (0, host, str(login_files))
    assert run("push", "iris", f"{host}/x:1", *store)[0] == 0
    assert run("pull", f"{host}/x:1", "--store", str(tmp_path / "b"))[0] == 0

    assert run("logout", host) == (0, {"registry": host, "forgotten": True})
    assert run("logout", host) == (0, {"registry": host, "forgotten": False})
    assert run("pull", f"{host}/x:1", "--store", str(tmp_path / "c"))[0] == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("localhost:5000", "--password-stdin"),
        ("localhost:5000", "-u", "ada"),
        ("localhost:5000", "-u", "a:b", "--password-stdin"),
        ("localhost:5000", "-u", "ada", "--password-stdin"),
        ("https://localhost:5000", "-u", "ada", "--password-stdin"),
        ("localhost:5000/x", "-u", "ada", "--password-stdin"),
        ("ghcr", "-u", "ada", "--password-stdin"),
    ],
)
def test_a_login_that_cannot_be(
    run: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    stdin(monkeypatch, "" if len(arguments) == 4 and arguments[2] == "ada" else "secret\n")
    assert run("login", *arguments)[0] == 2


@pytest.mark.parametrize("command", [("list",), ("model", "list")])
@pytest.mark.parametrize("name", ["localhost:5000", "iris:1"])
def test_what_is_no_name_to_list_is_told_what_to_write(
    run: Callable[..., tuple[int, Any]], tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    status, error = run(*command, name, "--store", str(tmp_path))
    assert (status, "HOST/REPOSITORY" in error["error"]["hint"]) == (2, True)


def test_a_fault_of_the_registry_is_told_as_its_own(
    faulty: Any, reply: Any, run: Callable[..., tuple[int, Any]], tmp_path: Path
) -> None:
    faulty.script["GET", "/v2/r/manifests/1"] = [reply(507)]  # a full disk; tried again are only those that may pass
    status, error = run("show", f"{faulty.host}/r:1", "--store", str(tmp_path))
    assert (status, "its log" in str(error["error"]["hint"])) == (5, True), error


def test_login_moves_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["login", "--help"]) == 0
    shown = capsys.readouterr().out
    assert ("--jobs" in shown, "--ca-file" in shown) == (False, True)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")
def test_ctrl_c_in_the_middle_leaves_nothing_half(
    faulty: Any, reply: Any, make_model: Callable[..., StoredModel], tmp_path: Path
) -> None:
    source = Layout(tmp_path / "a")
    model = make_model(source)
    for part in (*model.manifest.layers, model.manifest.config):
        with source.open_layer(part) as stream:
            faulty.add_blob(stream.read())
    faulty.add_manifest(source.read(model.digest), "1")
    # Busy for as long as it takes: the process waits for its second try.
    largest = max(model.manifest.layers, key=lambda layer: layer.size)
    faulty.script["GET", f"/v2/r/blobs/{largest.digest}"] = [reply(503, headers={"Retry-After": "60"})]
    command = [sys.executable, "-m", "bentotool", "pull", f"{faulty.host}/r:1", "--store", str(tmp_path / "b")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    deadline = time.monotonic() + 20
    while not faulty.requests("GET", largest.digest) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert err == "interrupted; the same command goes on with what is not there yet\n"
    store = Layout(tmp_path / "b")
    assert RefStore(store).list("models") == []
    assert not store.has(model.digest)
    assert list(store.temporary().iterdir()) == []
