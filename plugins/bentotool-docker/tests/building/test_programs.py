"""What each program is called with, told by one that stands in for it and writes its arguments down."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bentotool_docker import programs
from bentotool_docker.builder import in_engine
from bentotool_docker.programs import PROGRAMS, BuildCall, find_program

from bentotool.errors import BuildError, RemoteError, UsageError

FAKE = """#!{python}
import json, os, sys
with open({log!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
said = os.environ.get("FAKE_SAYS", "")
if os.environ.get("FAKE_FAILS", "no such words") in " ".join(sys.argv[1:]):
    sys.exit(said or "refused")
print(said)
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    if os.name != "posix":
        pytest.skip("needs a system that runs scripts by their first line")
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return folder


def install(folder: Path, *names: str) -> Path:
    log = folder.parent / "calls"
    for name in names:
        (folder / name).write_text(FAKE.format(python=sys.executable, log=str(log)))
        (folder / name).chmod(0o755)
    return log


def calls(log: Path) -> list[list[str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def call(folder: Path) -> BuildCall:
    return BuildCall(
        context=Path("/c"),
        dockerfile=Path("/f/Dockerfile"),
        target="environment",
        platform="linux/arm64",
        tag="localhost/x:1",
        output=Path("/o/image.tar"),
        secrets={"bentotool-ca": Path("/s/a,b")},
    )


SHARED = ["--target", "environment", "--platform", "linux/arm64", "--tag", "localhost/x:1", "--file", "/f/Dockerfile"]
SECRET = ["--secret", 'id=bentotool-ca,"src=/s/a,b"']


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "buildx",
            ["docker", "buildx", "build", "--progress", "plain", "--load", "--provenance", "false", *SHARED, *SECRET],
        ),
        ("docker", ["docker", "build", *SHARED]),
        ("podman", ["podman", "build", "--format", "oci", "--layers", "--timestamp", "0", *SHARED, *SECRET]),
        (
            "buildah",
            ["buildah", "build", "--format", "oci", "--layers", "--force-rm", "--timestamp", "0", *SHARED, *SECRET],
        ),
        (
            "nerdctl",
            ["nerdctl", "build", "--progress", "plain", *SHARED, *SECRET, "--output", "type=oci,dest=/o/image.tar"],
        ),
    ],
)
def test_build_commands(name: str, expected: list[str], tmp_path: Path, fakes: Path) -> None:
    program = next(each for each in PROGRAMS if each.name == name)
    assert program.build_command(call(tmp_path)) == [*expected, "/c"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("buildx", ["docker", "image", "save", "--output", "/o/i.tar", "x"]),
        ("podman", ["podman", "image", "save", "--format", "oci-archive", "--output", "/o/i.tar", "x"]),
        ("buildah", ["buildah", "push", "x", "oci-archive:/o/i.tar"]),
    ],
)
def test_save_commands(name: str, expected: list[str]) -> None:
    program = next(each for each in PROGRAMS if each.name == name)
    assert program.save_command("x", Path("/o/i.tar")) == expected


def test_a_password_of_a_proxy_is_no_argument(fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://ada:canary@proxy:3128")
    command = PROGRAMS[0].build_command(call(tmp_path))
    assert command[-3:-1] == ["--build-arg", "https_proxy"]
    assert "canary" not in " ".join(command)


def test_the_first_that_answers(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = install(fakes, "docker", "podman")
    assert find_program(None).name == "buildx"
    assert find_program("podman").name == "podman"
    assert calls(log)[0] == ["docker", "buildx", "version"]
    monkeypatch.setenv("FAKE_FAILS", "buildx")
    assert find_program(None).name == "docker"


def test_an_engine_that_does_not_answer(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(fakes, "docker")
    monkeypatch.setenv("FAKE_FAILS", "--format")
    monkeypatch.setenv("FAKE_SAYS", "Cannot connect to the Docker daemon. Is it running?")
    with pytest.raises(RemoteError, match="no engine answers docker: Cannot connect"):
        find_program(None)
    install(fakes, "podman")
    assert find_program(None).name == "podman"


def test_none_at_all(fakes: Path) -> None:
    with pytest.raises(BuildError, match="are all missing") as caught:
        find_program(None)
    assert "--builder oci" in str(caught.value.hint)
    with pytest.raises(UsageError, match="podman is not installed"):
        find_program("podman")
    with pytest.raises(UsageError, match="no program 'lxc'"):
        find_program("lxc")


def test_one_that_hangs(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fakes / "docker").write_text(f"#!{sys.executable}\nimport threading\nthreading.Event().wait(60)\n")
    (fakes / "docker").chmod(0o755)
    monkeypatch.setattr(programs, "_ASK_S", 0.5)
    with pytest.raises(BuildError, match="did not end within"):
        find_program(None)


@pytest.mark.parametrize(
    ("names", "pulled"),
    [
        (["python@sha256:" + "a" * 64], True),
        (["registry.example:5000/base@sha256:" + "a" * 64], False),
        (["registry.example:5000/base@sha256:" + "b" * 64, "python@sha256:" + "a" * 64], True),
        ([], False),
    ],
)
def test_the_digest_that_counts_is_that_of_the_named_repository(names: list[str], pulled: bool) -> None:
    said = {"Os": "linux", "Architecture": "amd64", "Id": "sha256:" + "c" * 64, "RepoDigests": names}
    base = in_engine(SimpleNamespace(describe=lambda _: said), "python:3.11-slim", "linux/amd64")  # type: ignore[arg-type]
    assert base is not None
    assert base.pulled == pulled
    assert base.digest == "sha256:" + ("a" if pulled else "c") * 64
