from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bentotool.build.wheel import as_text, make_wheel, open_wheel, runtime_files, runtime_wheel
from bentotool.errors import BentotoolError, VerificationError

GOLDEN = "40fa72df870bafcc3df160e3f0fa650108991ce5131a0a1d437dafb97003e5c9"


def test_the_bytes_of_a_wheel_are_fixed() -> None:
    """Golden: a change here changes the digest of every Bento."""
    wheel = make_wheel("demo_pkg", "1.0", {"b.py": b"y = 2\n", "a/x.py": b"x = 1\n"}, ["tiny>=1"])
    assert hashlib.sha256(wheel).hexdigest() == GOLDEN
    assert [name for name, _ in open_wheel(wheel)] == [
        "a/x.py",
        "b.py",
        "demo_pkg-1.0.dist-info/METADATA",
        "demo_pkg-1.0.dist-info/WHEEL",
        "demo_pkg-1.0.dist-info/RECORD",
    ]


def test_the_runtime_wheel_holds_the_runtime_side_alone() -> None:
    version, wheel = runtime_wheel()
    files = dict(open_wheel(wheel))
    assert wheel == runtime_wheel()[1]
    tops = {name.split("/")[1].split(".")[0] for name in files if name.startswith("bentotool/")}
    public = {"exceptions", "images", "metrics", "monitoring", "validators"}
    assert tops <= {"__init__", "errors", "frameworks", "sdk", "runtime", "client", "models", *public}
    assert {name for name in files if "/models/" in name} <= {
        "bentotool/models/__init__.py",
        "bentotool/models/reader.py",
        "bentotool/models/trust.py",
    }
    assert any(name.startswith("bentotool/runtime/swagger/") for name in files), "data files travel too"
    metadata = files[f"bentotool_runtime-{version}.dist-info/METADATA"].decode()
    assert "Requires-Dist: msgspec" in metadata
    assert not [name for name in files if name.endswith(".pyc")]


def test_the_runtime_wheel_imports_without_the_rest(tmp_path: Path) -> None:
    for name, content in open_wheel(runtime_wheel()[1]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "import bentotool, bentotool.models.reader, bentotool.errors;"
        "assert bentotool.__file__.startswith(sys.path[0]); print(bentotool.__version__)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_line_ends_of_a_checkout_do_not_matter() -> None:
    assert as_text(b"a\r\nb\r\n") == b"a\nb\n"
    assert not [name for name, content in runtime_files().items() if name.endswith(".py") and b"\r\n" in content]


def hostile(name: str, mode: int = 0o100644, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.create_system, entry.external_attr, entry.compress_type = 3, mode << 16, method
        archive.writestr(entry, b"x" * 100)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x", "a\\b", "CON", "a//b"])
def test_names_that_leave_the_folder(name: str) -> None:
    with pytest.raises(BentotoolError):
        list(open_wheel(hostile(name)))


def test_links_compression_and_damage() -> None:
    for data in (hostile("x", 0o120777), hostile("x", method=zipfile.ZIP_DEFLATED), b"not a zip", hostile("x")[:-30]):
        with pytest.raises(VerificationError):
            list(open_wheel(data))
