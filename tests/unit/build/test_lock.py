from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bentotool.build import uvrun as module
from bentotool.build.lock import Lock, make_lock, parse_lock, read_lock
from bentotool.build.requirements import Indexes, Requirements
from bentotool.errors import BentotoolError, BuildError, UsageError, VerificationError


@pytest.fixture
def wanted(wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Requirements:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Requirements(("tiny",), (), Indexes(find_links=(str(wheelhouse),), no_index=True))


_CAUSES = """error: Request failed after 3 retries in 6.2s
  cause: Failed to fetch: `https://user:s3cret@host/simple/x/`
  cause: {}
"""


def test_why_an_index_gave_nothing_is_one_address_and_one_cause() -> None:
    lost = "error sending request for url (https://host/simple/x/)\n  cause: dns error\n  cause: no such host"
    error = module.explain(_CAUSES.format(lost), offline=False)
    assert error.message == "the package index did not answer: https://***@host/simple/x/: no such host"
    broken = "HTTP status server error (502 Bad Gateway) for url (https://host/simple/x/)"
    error = module.explain(_CAUSES.format(broken), offline=False)
    words = "https://***@host/simple/x/: HTTP status server error (502 Bad Gateway)"
    assert error.message == f"the package index answered with an error: {words}"


def test_a_lock_pins_everything_with_hashes_and_says_no_more(wanted: Requirements, wheelhouse: Path) -> None:
    lock = make_lock(wanted, "3.12", "linux/amd64")
    assert lock.pins == ("tiny==2.0", "tinydep==1.5")
    assert lock.text.count("--hash=sha256:") == 2
    assert str(wheelhouse) not in lock.text
    assert parse_lock(lock.text) == lock


def test_a_lock_stands_while_its_inputs_do(wanted: Requirements) -> None:
    lock = make_lock(wanted, "3.12", "linux/amd64")
    again = make_lock(wanted, "3.12", "linux/amd64", previous=lock, locked=True)
    assert (again.text, again.reused) == (lock.text, True)
    for python, platform in (("3.11", "linux/amd64"), ("3.12", "linux/arm64")):
        with pytest.raises(UsageError, match="out of date"):
            make_lock(wanted, python, platform, previous=lock, locked=True)
    with pytest.raises(UsageError, match="missing"):
        make_lock(wanted, "3.12", "linux/amd64", locked=True)


def test_a_lock_that_was_edited_is_noticed_and_one_without_the_digest_is_read(wanted: Requirements) -> None:
    lock = make_lock(wanted, "3.12", "linux/amd64")
    assert "tiny==2.0" in lock.text
    for edited in (lock.text.replace("tiny==2.0", "tiny==1.0"), lock.text.rpartition("tinydep")[0], lock.text + "\n"):
        with pytest.raises(VerificationError, match="was changed since it was made") as caught:
            parse_lock(edited)
        assert "delete bento.lock" in str(caught.value.hint)
    older = "".join(line for line in lock.text.splitlines(True) if not line.startswith("# content: "))
    assert make_lock(wanted, "3.12", "linux/amd64", previous=parse_lock(older), locked=True).text == older


def test_pins_that_still_fit_are_kept(wanted: Requirements) -> None:
    old = make_lock(Requirements(("tiny==1.0",), (), wanted.indexes), "3.12", "linux/amd64")
    assert make_lock(wanted, "3.12", "linux/amd64", previous=old).pins == ("tiny==1.0", "tinydep==1.5")


def test_constraints(wanted: Requirements) -> None:
    limited = Requirements(("tiny",), ("tiny<2",), wanted.indexes)
    assert make_lock(limited, "3.12", "linux/amd64").pins[0] == "tiny==1.0"


def test_what_cannot_be_resolved_is_one_line(wanted: Requirements) -> None:
    absent = Requirements(("absent-package-of-no-one",), (), wanted.indexes)
    with pytest.raises(BuildError, match="absent-package-of-no-one") as caught:
        make_lock(absent, "3.12", "linux/amd64")
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_an_unreachable_index_is_a_remote_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    nowhere = Requirements(("x",), (), Indexes(index_url="http://127.0.0.1:9/simple"))
    with pytest.raises(BentotoolError, match="did not answer") as caught:
        make_lock(nowhere, "3.12", "linux/amd64")
    assert caught.value.exit_status == 5


def test_credentials_in_a_report_are_removed() -> None:
    error = module.explain("error: failed to fetch https://user:s3cret@host/simple", offline=False)
    assert "s3cret" not in error.message


_OFFLINE = """error: No solution found when resolving dependencies
  cause: Because onnxruntime was not found in the cache and you require onnxruntime>=1.18, we can conclude that your
  requirements are unsatisfiable.

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may
only be read from the cache.
"""


def test_offline_with_an_empty_cache_is_one_sentence() -> None:
    error = module.explain(_OFFLINE, offline=True)
    assert error.message == "requirements cannot be resolved offline: onnxruntime is not in uv's cache"
    assert "--offline" in str(error.hint)
    assert "find_links" in str(error.hint)


def test_offline_with_a_real_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match="tiny is not in uv's cache") as caught:
        make_lock(Requirements(("tiny",), (), Indexes()), "3.12", "linux/amd64", offline=True)
    assert "--offline" in str(caught.value.hint)


def test_a_wheel_with_a_wrong_name_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    named = Requirements(("foo @ https://localhost/foo.whl",), (), Indexes(no_index=True))
    with pytest.raises(BuildError, match=r"foo\.whl. is invalid") as caught:
        make_lock(named, "3.12", "linux/amd64", offline=True)
    assert "NAME-VERSION" in str(caught.value.hint)


def test_a_named_configuration_of_uv_still_counts(
    wanted: Requirements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheelhouse: Path
) -> None:
    config = tmp_path / "uv.toml"
    config.write_text(f"no-index = true\nfind-links = [{str(wheelhouse)!r}]\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(config))
    assert make_lock(Requirements(("tiny",)), "3.12", "linux/amd64").pins[0] == "tiny==2.0"


def test_litestar_is_locked_without_what_serving_never_imports(tmp_path: Path, wanted: Requirements) -> None:
    from bentotool.build.wheel import make_wheel

    folder = tmp_path / "stars"
    folder.mkdir()
    for name, needs in (
        ("litestar", ["rich", "httpx", "msgspec"]),
        ("tool", ["httpx"]),
        *((name, []) for name in ("anyio", "httpx", "msgspec", "multidict", "multipart", "pyyaml", "rich", "sniffio")),
        ("typing_extensions", []),
    ):
        wheel = make_wheel(name, "9.0", {f"{name}.py": b""}, needs)
        (folder / f"{name}-9.0-py3-none-any.whl").write_bytes(wheel)
    indexes = Indexes(find_links=(str(folder),), no_index=True)
    names = [
        pin.split("==")[0] for pin in make_lock(Requirements(("litestar",), (), indexes), "3.12", "linux/amd64").pins
    ]
    assert "msgspec" in names
    assert not {"rich", "httpx"} & set(names)
    with_tool = make_lock(Requirements(("litestar", "tool"), (), indexes), "3.12", "linux/amd64").pins
    assert "httpx==9.0" in with_tool, "whoever else needs a left-out package still gets it"


def test_hashes_that_the_project_pins_are_the_only_ones(wanted: Requirements, wheelhouse: Path) -> None:
    from bentotool.oci.digest import hash_file

    digest, _ = hash_file(wheelhouse / "tiny-2.0-py3-none-any.whl")
    pinned = Requirements((f"Tiny==2.0 --hash={digest} --hash=sha256:{'0' * 64}",), (), wanted.indexes)
    lock = make_lock(pinned, "3.12", "linux/amd64")
    assert digest in lock.text
    assert "0" * 64 not in lock.text
    assert lock.pins == ("tiny==2.0", "tinydep==1.5")
    changed = Requirements((f"tiny==2.0 --hash=sha256:{'0' * 64}",), (), wanted.indexes)
    with pytest.raises(VerificationError, match="tiny==2.0"):
        make_lock(changed, "3.12", "linux/amd64")


HEADER = (
    "# bento.lock, format 1: made by `bentotool build`, not to be edited\n"
    f"# inputs: sha256:{'0' * 64}\n# python: 3.12\n# platform: linux/amd64\n"
)
HASH = f"    --hash=sha256:{'1' * 64}\n"


def test_the_form_of_a_lock() -> None:
    lock = parse_lock(f"{HEADER}a==1.0 \\\n{HASH}b==2 ; sys_platform == 'linux' \\\n{HASH}")
    assert lock == Lock(lock.text, f"sha256:{'0' * 64}", "3.12", "linux/amd64")
    assert lock.pins == ("a==1.0", "b==2")


@pytest.mark.parametrize(
    "body",
    ["--index-url https://evil/\n", "a==1.0\n", f"a==1.0 \\\n{HASH}-r other\n", f"a @ file:///x \\\n{HASH}",
     "../x.whl\n",
     f"a==1.0 \\\n{HASH}--find-links x\n", f"a @ https://u:p@h/x \\\n{HASH}", f"a>=1 \\\n{HASH}", HASH + "b==1\n"],
)  # fmt: skip
def test_a_lock_with_anything_else_is_refused(body: str) -> None:
    with pytest.raises(VerificationError):
        parse_lock(HEADER + body)


def test_reading_a_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None
    for content in (b"", b"\xff", b"# hello\n"):
        (tmp_path / "bento.lock").write_bytes(content)
        with pytest.raises(VerificationError):
            read_lock(tmp_path)
    (tmp_path / "bento.lock").write_bytes(f"{HEADER}a==1.0 \\\n{HASH}".replace("\n", "\r\n").encode())
    assert read_lock(tmp_path)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "win32", reason="a shell script stands for uv")
def test_a_uv_that_hangs_is_ended(wanted: Requirements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "uv"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(module, "uv_program", lambda: str(slow))
    with pytest.raises(BuildError, match="took more than"):
        make_lock(wanted, "3.12", "linux/amd64", timeout=0.2)
