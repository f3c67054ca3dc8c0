"""Attaching where the list of referrers is one that the client keeps."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from bentotool.errors import VerificationError
from bentotool.oci.attached import Attachment, referrer_bytes
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor
from bentotool.oci.referrers import attach

SUBJECT = Descriptor(MANIFEST, "sha256:" + "a" * 64, 10)


class Full:
    """A registry without the referrers API, whose list somebody has filled."""

    registry = "r.example"

    def upload_manifest(self, *_: Any) -> bool:
        return False

    def get_manifest(self, *_: Any) -> SimpleNamespace:
        entries = [{"mediaType": MANIFEST, "digest": f"sha256:{number:064x}", "size": 1} for number in range(1001)]
        return SimpleNamespace(data=json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode())


def test_a_list_that_is_full_says_which_tag_it_is() -> None:
    data = referrer_bytes(SUBJECT, "application/x", [Attachment(b"x", "application/x")], {})
    with pytest.raises(VerificationError, match="1001 entries") as caught:
        attach(Full(), "r", data)  # type: ignore[arg-type]
    assert f"tag sha256-{'a' * 64}" in str(caught.value.hint)
