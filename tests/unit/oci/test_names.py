from __future__ import annotations

from pathlib import Path

import pytest

from bentotool.errors import NotFoundError, UnsafeError, UsageError
from bentotool.oci.descriptor import MANIFEST
from bentotool.oci.layout import Layout
from bentotool.oci.names import check_name, check_version, split_reference
from bentotool.oci.refs import RefStore
from bentotool.oci.tar import check_entry_name


@pytest.mark.parametrize("name", ["aux", "AUX", "aux.txt", "con.v2", "com1", "lpt9.bin"])
def test_a_device_of_windows_is_told_as_one(name: str) -> None:
    for check in (check_name, check_version):
        with pytest.raises(UsageError, match="on Windows '.*' is a device, not a file"):
            check(name)
    with pytest.raises(UsageError, match="is a device"):
        split_reference(f"{name}:1")


@pytest.mark.parametrize("name", ["auxiliary", "com", "com10", "a.aux", "console.v1"])
def test_names_that_only_look_like_one(name: str) -> None:
    assert check_name(name) == check_version(name) == name


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("linear-modle", "did you mean linear-model?"),
        ("linear", "did you mean linear-model?"),
        ("iris", "see what there is with: bentotool model list"),
        ("lin", "did you mean lin3?"),
        ("lin9", "see what there is with: bentotool model list"),
    ],
)
def test_only_near_names_are_suggested(tmp_path: Path, asked: str, hint: str) -> None:
    refs = RefStore(Layout(tmp_path))
    content = refs._layout.put(b"{}", MANIFEST)
    for name in ("linear-model", "lin3"):
        refs.set("models", name, "1", content, size=2)
    with pytest.raises(NotFoundError) as caught:
        refs.get("models", asked)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("con.txt", "on Windows 'con' is a device"),
        ("a/NUL", "on Windows 'NUL' is a device"),
        ("x ", "ends in a space, which Windows drops"),
        ("a./b", "ends in a dot, which Windows drops"),
        ("a/.wh.b", "deletes a file of a lower image layer"),
        ("a/../b", "is not a plain relative path"),
        ("/a", "is not a plain relative path"),
    ],
)
def test_why_a_file_cannot_have_its_name(name: str, why: str) -> None:
    with pytest.raises(UnsafeError, match=why):
        check_entry_name(name)
