"""Images whose server checks every byte of the Bento when it starts: unpacked, changed, started."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import StoredBento
from bentotool.errors import VerificationError
from bentotool.models.store import ModelStore
from bentotool.oci.descriptor import Manifest
from bentotool.oci.layout import Layout
from bentotool.runtime.verifying import DOCUMENTS, verify_bento

pytestmark = pytest.mark.timeout(120)
Cli = Callable[..., Any]
SITE = "opt/bentotool/env/lib/python3.12/site-packages"


@pytest.fixture
def make(cli: Cli, bento: StoredBento, base: str, wheels: Path) -> Cli:
    def run(*arguments: str, status: int = 0) -> Any:
        options = ("--base", base, "--offline", "--find-links", str(wheels))
        return cli("containerize", bento.tag, *options, *arguments, status=status)

    return run


def unpacked(layout: Layout, document: Any, folder: Path) -> Path:
    """The image's own layers as a folder tree."""
    manifest = Manifest.from_bytes(layout.read(document["images"][0]["digest"]))
    described = {layer.digest: layer for layer in ModelStore(layout).get("iris:1").manifest.layers}
    for layer, told in zip(manifest.layers, document["images"][0]["layers"], strict=True):
        if told["kind"] == "base":
            continue
        with (
            layout.open_layer(described.get(layer.digest, layer)) as stream,
            tarfile.open(fileobj=stream, mode="r|*") as archive,
        ):
            for member in archive:
                if member.isfile():
                    target = folder / member.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    content = archive.extractfile(member)
                    assert content is not None
                    target.write_bytes(content.read())
    return folder


def check(root: Path, bento: StoredBento) -> int:
    return verify_bento(root, bento.digest, root / DOCUMENTS, root / SITE).files


def test_one_small_layer_more_and_nothing_else_changes(make: Cli, layout: Layout, bento: StoredBento) -> None:
    plain, checked = make("--no-compress"), make("--no-compress", "--verify")
    before, after = (each["images"][0]["layers"] for each in (plain, checked))
    assert [layer["digest"] for layer in after[:-1]] == [layer["digest"] for layer in before]
    assert after[-1]["kind"] == "signed"
    assert after[-1]["size"] < 100_000
    manifest = Manifest.from_bytes(layout.read(checked["images"][0]["digest"]))
    config = json.loads(layout.read(manifest.config.digest))
    assert f"BENTOTOOL_VERIFY={bento.digest}" in config["config"]["Env"]
    again = make("--no-compress", "--verify")
    assert again["images"][0]["digest"] == checked["images"][0]["digest"]


def test_whatever_is_changed_is_noticed(make: Cli, layout: Layout, bento: StoredBento, tmp_path: Path) -> None:
    root = unpacked(layout, make("--no-compress", "--verify"), tmp_path / "root")
    assert check(root, bento) > 50
    documents = sorted((root / DOCUMENTS).iterdir())
    assert len(documents) == 3  # Bento, lock, model
    (model,) = (path for path in root.glob("models/iris/**/*") if path.is_file())
    changed = [root / "home/bento/app/service.py", root / "home/bento/bento.json", model, *documents]
    changed += [root / SITE / "bentotool/runtime/app.py", root / SITE / "bentotool/runtime/verifying.py"]
    for path in changed:
        content = path.read_bytes()
        for other in (content[:-1] + bytes([content[-1] ^ 1]), content + b"\n", content[:-1], None):
            if other is None:
                path.unlink()
            else:
                path.write_bytes(other)
            with pytest.raises(VerificationError) as caught:
                check(root, bento)
            assert caught.value.exit_status == 4
            path.write_bytes(content)
    for extra in (
        "home/bento/app/sitecustomize.py",
        "home/bento/app/__pycache__/service.cpython-312.pyc",
        f"{SITE}/bentotool/runtime/json.py",
        f"{SITE}/bentotool/runtime/__pycache__/app.cpython-312.pyc",
        "models/iris/tokenizer.json",
    ):
        path = root / extra
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        with pytest.raises(VerificationError):
            check(root, bento)
        path.unlink()
        if path.parent.name == "__pycache__":
            path.parent.rmdir()
    if sys.platform != "win32":
        service = root / "home/bento/app/service.py"
        service.rename(tmp_path / "service.py")
        service.symlink_to(tmp_path / "service.py")
        with pytest.raises(VerificationError, match="no regular file"):
            check(root, bento)
        service.unlink()
        (tmp_path / "service.py").rename(service)
    check(root, bento)
    for digest in ("", "sha256:" + "0" * 64, "md5:x", "../../etc/passwd"):
        with pytest.raises(VerificationError):
            verify_bento(root, digest, root / DOCUMENTS, root / SITE)


def test_a_server_that_finds_a_changed_byte_does_not_start(
    make: Cli, layout: Layout, bento: StoredBento, tmp_path: Path
) -> None:
    root = unpacked(layout, make("--no-compress", "--verify"), tmp_path / "root")
    variables = {
        **os.environ,
        "PYTHONPATH": str(root / SITE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BENTOTOOL_VERIFY": bento.digest,
    }

    def start(*options: str, where: Path = root / "home/bento") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bentotool.runtime", str(where), "--plan", *options]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, cwd=root)

    done = start()
    assert done.returncode == 0, done.stderr
    assert bento.digest in done.stderr
    assert "verified" not in start("--quiet").stderr
    service = root / "home/bento/app/service.py"
    service.chmod(stat.S_IRUSR | stat.S_IWUSR)
    service.write_text(service.read_text().replace("2 * x", "3 * x"))
    done = start()
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: the code in ")
    assert start(where=root / "home/bento/app").returncode == 4, "a project folder has nothing to be checked against"
    variables["BENTOTOOL_VERIFY"] = "yes"
    done = start()
    assert (done.returncode, "is not a sha256 digest" in done.stderr) == (4, True)
    variables["BENTOTOOL_VERIFY"] = ""
    assert start().returncode == 0


def test_what_goes_not_with_it(make: Cli, tmp_path: Path) -> None:
    assert "bytecode" in make("--verify", "--bytecode", status=2)["message"]
    assert "Dockerfile" in make("--verify", "--print-dockerfile", status=2)["message"]


def test_a_policy_asks_for_it(make: Cli, bento: StoredBento, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"enforce: true\nruntime_check: true\nrules: [{{repositories: [{bento.name}]}}]\n")
    monkeypatch.setenv("BENTOTOOL_POLICY", str(policy))
    assert make()["images"][0]["layers"][-1]["kind"] == "signed"
    assert "check itself" in make("--context", str(tmp_path / "context"), status=4)["message"]
    assert not (tmp_path / "context").exists()
