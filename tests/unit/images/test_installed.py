"""What an installer leaves, as the files of an environment in an image."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from bentotool.images.installed import environment_entries
from bentotool.images.layer import LayerEntry

PREFIX, SITE = "/opt/x/env", "opt/x/env/lib/python3.12/site-packages"
RECORD = """{bin}/demo,sha256=aaaa,9
{bin}/{launcher},sha256=bbbb,9
demo/__init__.py,sha256=cccc,0
demo/__pycache__/__init__.cpython-311.pyc,,
demo-1.dist-info/INSTALLER,sha256=dddd,2
demo-1.dist-info/direct_url.json,sha256=eeee,2
demo-1.dist-info/RECORD,,
"""


def put(folder: Path, name: str, content: str | bytes = b"") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture(params=["posix", "windows"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder as uv leaves it on two systems."""
    windows = request.param == "windows"
    site = "Lib/site-packages" if windows else "lib/python3.11/site-packages"
    programs = "Scripts" if windows else "bin"
    back = "..\\..\\Scripts" if windows else "../../../bin"
    put(tmp_path, f"{site}/demo/__init__.py")
    put(tmp_path, f"{site}/demo/__pycache__/__init__.cpython-311.pyc", b"x")
    put(tmp_path, f"{site}/demo/fast.cpython-312-x86_64-linux-gnu.so", b"\x7fELF....")
    put(tmp_path, f"{site}/bentotool/__init__.py", "other")
    put(tmp_path, f"{site}/demo-1.dist-info/INSTALLER", "uv")
    put(tmp_path, f"{site}/demo-1.dist-info/REQUESTED")
    put(tmp_path, f"{site}/demo-1.dist-info/direct_url.json", "{}")
    put(tmp_path, f"{site}/demo-1.dist-info/METADATA", "Name: demo\n")
    put(tmp_path, f"{site}/demo-1.dist-info/entry_points.txt", "[console_scripts]\nDemo-run = demo.main:App.run\n")
    launcher = "Demo-run.exe" if windows else "Demo-run"
    put(tmp_path, f"{site}/demo-1.dist-info/RECORD", RECORD.format(bin=back, launcher=launcher))
    put(tmp_path, f"{programs}/{launcher}", b"MZ" if windows else "#!/here/python\nimport sys\n")
    put(tmp_path, f"{programs}/demo", "#!/tmp/venv/bin/python3\nprint(1)\n")
    put(tmp_path, "share/demo/data.txt", "data")
    put(tmp_path, ".lock")
    return tmp_path


def text(entry: LayerEntry) -> str:
    return (entry.content.read_bytes() if isinstance(entry.content, Path) else entry.content).decode()


def test_files_lie_where_the_target_has_them(installed: Path) -> None:
    found = {entry.name: entry for entry in environment_entries(installed, PREFIX, "3.12")}
    assert sorted(found) == [
        "opt/x/env/bin/Demo-run",
        "opt/x/env/bin/demo",
        f"{SITE}/demo-1.dist-info/METADATA",
        f"{SITE}/demo-1.dist-info/RECORD",
        f"{SITE}/demo-1.dist-info/entry_points.txt",
        f"{SITE}/demo/__init__.py",
        f"{SITE}/demo/fast.cpython-312-x86_64-linux-gnu.so",
        "opt/x/env/share/demo/data.txt",
    ]
    programs = {name for name, entry in found.items() if entry.program}
    assert programs == {
        "opt/x/env/bin/Demo-run",
        "opt/x/env/bin/demo",
        f"{SITE}/demo/fast.cpython-312-x86_64-linux-gnu.so",
    }
    assert text(found["opt/x/env/bin/demo"]) == "#!/opt/x/env/bin/python\nprint(1)\n"
    made = text(found["opt/x/env/bin/Demo-run"])
    assert made.startswith("#!/opt/x/env/bin/python\nimport sys\nfrom demo.main import App\n")
    assert "sys.exit(App.run())" in made


def test_the_record_lists_what_is_there(installed: Path) -> None:
    found = {entry.name: entry for entry in environment_entries(installed, PREFIX, "3.12")}
    rows = text(found[f"{SITE}/demo-1.dist-info/RECORD"]).splitlines()
    content = text(found["opt/x/env/bin/demo"]).encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    assert f"../../../bin/demo,sha256={digest},{len(content)}" in rows
    listed = [row.split(",")[0] for row in rows]
    assert listed == sorted(listed)
    assert not [
        name for name in listed if "INSTALLER" in name or "direct_url" in name or name.endswith((".pyc", ".exe"))
    ]


def test_a_program_behind_a_trampoline(tmp_path: Path) -> None:
    put(tmp_path, "bin/tool", b"#!/bin/sh\n'''exec' \"/very long/python\" \"$0\" \"$@\"\n' '''\nprint(2)\n")
    put(tmp_path, "bin/binary", b"\x7fELF\x00\n")
    found = {entry.name: text(entry) for entry in environment_entries(tmp_path, PREFIX, "3.12")}
    assert found["opt/x/env/bin/tool"] == "#!/opt/x/env/bin/python\nprint(2)\n"
    assert found["opt/x/env/bin/binary"] == "\x7fELF\x00\n"


def test_entry_points_that_are_no_such(tmp_path: Path) -> None:
    put(tmp_path, "lib/python3.11/site-packages/a.dist-info/entry_points.txt", b"[console_scripts\nx=\xff")
    put(
        tmp_path,
        "lib/python3.11/site-packages/b.dist-info/entry_points.txt",
        "[console_scripts]\nx = os; evil:run\n../y = a:b\nok = a:b [extra]\n",
    )
    found = {entry.name for entry in environment_entries(tmp_path, PREFIX, "3.12")}
    assert {name for name in found if "/bin/" in name} == {"opt/x/env/bin/ok"}


def test_a_program_that_is_no_script_is_not_read_into_memory(tmp_path: Path) -> None:
    content = b"\x7fELF" + bytes(5000)
    put(tmp_path, "bin/tool", content)
    put(tmp_path, "lib/python3.12/site-packages/t-1.dist-info/RECORD", "../../../bin/tool,,\n")
    found = {entry.name: entry for entry in environment_entries(tmp_path, PREFIX, "3.12")}
    assert (found["opt/x/env/bin/tool"].content, found["opt/x/env/bin/tool"].program) == (tmp_path / "bin/tool", True)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    assert text(found[f"{SITE}/t-1.dist-info/RECORD"]) == f"../../../bin/tool,sha256={digest},{len(content)}\n"
