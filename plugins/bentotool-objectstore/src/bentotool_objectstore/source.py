"""``s3://``, ``gs://``, ``az://`` and ``abfss://``: models that lie in an object store. Nothing of them is run."""

from __future__ import annotations

from pathlib import PurePosixPath

from bentotool.errors import RemoteError, UsageError, VerificationError
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest
from bentotool.oci.digest import hash_file
from bentotool_objectstore.address import Address, parse
from bentotool_objectstore.listing import Found, find
from bentotool_objectstore.stores import open_store
from bentotool_objectstore.transfer import ObjectChangedError, Progress, transfer

_LOOKS = 3
"""Times that what is there is listed, when it changes while it is read."""


class ObjectStoreSource:
    """See :class:`bentotool.protocols.Source`."""

    def fetch(self, request: SourceRequest) -> SourceModel:
        """The object, or all objects below the prefix, as files in the request's folder.

        Raises:
            UsageError: the address, or a checksum for more than one file.
            NotFoundError: no such bucket, object or prefix.
            AuthenticationError: no credentials, or they are refused.
            RemoteError: the service did not answer, or broke off.
            UnsafeError: hostile names, or more than the limit.
            VerificationError: the checksum is another; the bytes are removed.
        """
        address = parse(request.uri)
        found = _fetched(address, request)
        files = request.folder / "files"
        if request.checksum is not None:
            _verify(address, request, found)
        title = PurePosixPath(address.title).stem if found.single else address.title
        return SourceModel(
            tuple(SourceFile(files.joinpath(*item.name.split("/")), item.name) for item in found.objects), title
        )


def _fetched(address: Address, request: SourceRequest) -> Found:
    store = open_store(address)
    progress = Progress(request.advance)
    for _ in range(_LOOKS):
        found = find(store, address, request.max_bytes)
        if request.checksum is not None and not found.single:
            raise UsageError(
                f"{address.shown} has many files, so --checksum cannot be checked", hint="give the key of one object"
            )
        try:
            transfer(store, address, found.objects, request.folder / "files", request.folder / "journal", progress)
        except ObjectChangedError:
            progress.restart()
            continue
        return found
    raise RemoteError(f"{address.shown} changes while it is read", hint="try again when nobody writes to it")


def _verify(address: Address, request: SourceRequest, found: Found) -> None:
    path = request.folder / "files" / found.objects[0].name
    actual, _ = hash_file(path)
    if actual != request.checksum:
        path.unlink()
        (request.folder / "journal").unlink()
        path.parent.rmdir()
        raise VerificationError(
            f"{address.shown} has {actual}, not {request.checksum}", hint="ask its publisher which one is right"
        )
