"""Which objects an address stands for: one, or all below a prefix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bentotool.errors import NotFoundError, UnsafeError
from bentotool.oci.tar import check_entry_names
from bentotool_objectstore.address import Address
from bentotool_objectstore.failures import translate

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["MAX_OBJECTS", "Found", "RemoteObject", "find"]

MAX_OBJECTS = 50_000
"""Files of one model. A prefix with more is most likely a bucket that was not meant as a whole."""


@dataclass(frozen=True)
class RemoteObject:
    """One object, as it was when it was looked at.

    Attributes:
        key: in the bucket.
        name: of the file it becomes.
        size: in bytes.
        tag: its ETag without quotes; empty where there is none, or only a weak one (RFC 9110 §8.8.1), which does not
            vouch for ranges.
        modified: when it last changed.
    """

    key: str
    name: str
    size: int
    tag: str
    modified: datetime


@dataclass(frozen=True)
class Found:
    """What an address stands for.

    Attributes:
        single: the address is an object's own key.
    """

    objects: tuple[RemoteObject, ...]
    single: bool


def strong_tag(tag: str | None) -> str:
    """An ETag to compare with; a listing of Azure leaves out the quotes of a header."""
    return "" if not tag or tag.startswith("W/") else tag.strip('"')


def _object(meta: Any, name: str) -> RemoteObject:
    return RemoteObject(meta["path"], name, int(meta["size"]), strong_tag(meta["e_tag"]), meta["last_modified"])


def find(store: ObjectStore, address: Address, max_bytes: int) -> Found:
    """Ask the store what is there, and check names, number and sizes before anything is fetched.

    Raises:
        NotFoundError: neither the object nor anything below it.
        UnsafeError: a key that is no portable file name, too many objects, or more than ``max_bytes``.
        RemoteError: the service refused or did not answer.
    """
    one = None if address.folder else _head(store, address, address.key)
    if one is not None and one.size:
        objects: tuple[RemoteObject, ...] = (one,)
    else:
        below = tuple(_below(store, address, max_bytes))
        objects = below or ((one,) if one else ())
    if not objects:
        raise NotFoundError(f"there is nothing at {address.shown}", hint="check the key: upper and lower case count")
    check_entry_names(item.name for item in objects)
    _check_total(address, sum(item.size for item in objects), max_bytes)
    return Found(objects, objects == (one,))


def _head(store: ObjectStore, address: Address, key: str) -> RemoteObject | None:
    import obstore
    from obstore.exceptions import BaseError

    try:
        return _object(obstore.head(store, key), key.rpartition("/")[2])
    except FileNotFoundError:
        return None
    except BaseError as error:
        raise translate(error, address) from None


def _listed(store: ObjectStore, address: Address) -> Iterator[RemoteObject]:
    import obstore
    from obstore.exceptions import BaseError

    start = f"{address.key}/" if address.key else ""
    try:
        for batch in obstore.list(store, address.key or None, chunk_size=1000):
            for meta in batch:
                if meta["path"].startswith(start):  # the prefix's own marker is listed as well
                    yield _object(meta, meta["path"][len(start) :])
    except (BaseError, FileNotFoundError) as error:
        raise translate(error, address) from None


def _below(store: ObjectStore, address: Address, max_bytes: int) -> Iterator[RemoteObject]:
    found, total = [], 0
    for item in _listed(store, address):
        found.append(item)
        total += item.size
        _check_total(address, total, max_bytes)
        if len(found) > MAX_OBJECTS:
            raise UnsafeError(
                f"there are more than {MAX_OBJECTS} objects below {address.shown}", hint="give the prefix of one model"
            )
    folders = {parent for item in found for parent in _parents(item.key)}
    for item in sorted(found, key=lambda item: item.name):
        # consoles write an empty object "folder/" where a user makes a folder; the listing drops the slash
        marker = not item.size and (item.key in folders or _head(store, address, item.key) is None)
        if not marker:
            yield item


def _parents(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def _check_total(address: Address, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise UnsafeError(
            f"{address.shown} is larger than {max_bytes} bytes", hint="raise the limit with --max-size if that is right"
        )
