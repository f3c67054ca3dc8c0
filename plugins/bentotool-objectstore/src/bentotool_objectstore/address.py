"""``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``, ``az://CONTAINER/KEY`` and ``abfss://CONTAINER@ACCOUNT.dfs…/KEY``.

What is refused is not repeated in the message: an address that holds what it should not may hold a secret.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from bentotool.errors import UsageError

__all__ = ["Address", "parse"]

_URI = re.compile(r"(s3|gs|az|abfss)://([^/]*)(?:/(.*))?", re.ASCII | re.IGNORECASE | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{0,221}", re.ASCII)
_ACCOUNT = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.core\.windows\.net", re.ASCII)
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
_FORMS = {
    "s3": "s3://BUCKET/KEY",
    "gs": "gs://BUCKET/KEY",
    "az": "az://CONTAINER/KEY",
    "abfss": "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY",
}


@dataclass(frozen=True)
class Address:
    """A place in an object store.

    Attributes:
        kind: ``s3``, ``gs`` or ``az``.
        bucket: a bucket, or a container of Azure.
        key: of an object or what objects are below; without slashes at its ends, empty for the whole bucket.
        folder: written with a slash at its end: never an object.
        account: of Azure, where the address names one.
        shown: as it stands in messages.
    """

    kind: str
    bucket: str
    key: str
    folder: bool
    account: str
    shown: str

    @property
    def title(self) -> str:
        """What the last part is called."""
        return self.key.rpartition("/")[2] or self.bucket

    @property
    def place(self) -> str:
        """The bucket alone, for messages."""
        return f"{self.kind}://{self.bucket}"


def parse(uri: str) -> Address:
    """Read an address.

    Raises:
        UsageError: it is none, or holds a user, a password or a query.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        raise UsageError("this is no address of an object store", hint=f"write one of {', '.join(_FORMS.values())}")
    scheme, authority, key = found[1].lower(), found[2], found[3] or ""
    bucket, account = authority, ""
    hint = f"write {_FORMS[scheme]}"
    if scheme == "abfss":
        bucket, _, host = authority.partition("@")
        named = _ACCOUNT.fullmatch(host)
        if named is None:
            raise UsageError(f"the {scheme}:// address names no storage account of Azure", hint=hint)
        account = named[1]
    if "@" in bucket or ":" in bucket or "?" in key:
        raise UsageError(
            f"the {scheme}:// address holds a user, a password or a query",
            hint="leave them out: credentials come from the environment",
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"the {scheme}:// address names no bucket", hint=hint)
    plain = key[:-1] if key.endswith("/") else key
    parts = plain.split("/") if plain else []
    if any(part in ("", ".", "..") for part in parts) or any(unicodedata.category(char) in _UNSEEN for char in plain):
        raise UsageError(f"the {scheme}:// address has a key that is not a plain path", hint=hint)
    kind = "az" if scheme == "abfss" else scheme
    return Address(kind, bucket, plain, key != plain or not plain, account, f"{scheme}://{authority}/{key}")
