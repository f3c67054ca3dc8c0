"""Bringing one blob into a repository: whole or in pieces, begun again where that helps, continued where it can be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import BinaryIO

import requests

from bentotool.errors import NotFoundError, RemoteError, UnsafeError
from bentotool.oci.auth import Scope
from bentotool.oci.chunked import ChunkedUpload, LostUploadError
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.limits import too_large
from bentotool.oci.retry import TransientError
from bentotool.oci.sessions import Session, SessionRecord, UploadJournal
from bentotool.oci.transport import Transport
from bentotool.oci.uploads import Advance, BodySource, UploadSizes, begin, put_whole

__all__ = ["Sending"]

_NO_PIECES = (405, 501)
"""What a registry says that takes uploads in one piece alone."""


class Sending:
    """One blob on its way into a repository that lacks it.

    Args:
        registry: its name, for messages and for what is known of its limits.
        url: where the repository takes uploads.
        sizes: what goes in pieces, and in how large ones.
        exists: asks whether the repository has the blob by now.
        journal: where the state of uploads in pieces is kept; None to keep none.
        advance: told the progress; it adds up to the blob's size.
    """

    def __init__(
        self,
        transport: Transport,
        registry: str,
        url: str,
        scope: Scope,
        blob: Descriptor,
        *,
        sizes: UploadSizes,
        exists: Callable[[], bool],
        journal: UploadJournal | None,
        advance: Advance,
    ) -> None:
        self._transport = transport
        self._registry = registry
        self._url = url
        self._scope = scope
        self._blob = blob
        self._sizes = sizes
        self._exists = exists
        self._journal = journal
        self._advance = advance
        self._tries = 0

    def run(self, stream: BinaryIO) -> int:
        """Send the blob.

        Args:
            stream: its bytes, seekable.

        Returns:
            the bytes sent: all of it but for what an earlier process had sent.

        Raises:
            RemoteError: when the registry refuses it, or the retry policy is used up.
        """
        chunked = self._blob.size > self._sizes.chunked_above
        send = self._in_pieces if chunked else self._whole
        try:
            return self._transport.retry.run(lambda: self._try(send, stream), self._transport.stop)
        except RemoteError as error:
            if error.details.get("status") == requests.codes.request_entity_too_large:
                at_once = min(self._sizes.chunk, self._blob.size) if chunked else self._blob.size
                raise too_large(error, self._registry, self._blob, at_once) from None
            raise

    def _try(self, send: Callable[[BinaryIO], int], stream: BinaryIO) -> int:
        self._tries += 1
        if self._tries > 1 and self._exists():  # the registry's last answer was lost, and not the blob
            self._advance(self._blob.size)
            return self._blob.size
        return send(stream)

    def _begin(self) -> tuple[str, int]:
        try:
            return begin(self._transport, self._url, self._scope)
        except NotFoundError as error:
            what = f"registry {self._registry} does not take content for {self._scope.repository}"
            raise RemoteError(what, hint=error.message) from None

    def _whole(self, stream: BinaryIO) -> int:
        location, _ = self._begin()
        source = BodySource(stream, 0, self._blob.size, self._advance, self._transport.stop)
        put_whole(self._transport, location, self._scope, self._blob.digest, source)
        return self._blob.size

    def _in_pieces(self, stream: BinaryIO) -> int:
        key = f"{self._url} {self._blob.digest}"
        claim = self._journal.claim(key) if self._journal else contextlib.nullcontext(SessionRecord(None, key))
        with claim as record:
            upload = self._upload(record)
            try:
                upload.send(stream, self._blob.digest, self._blob.size, self._advance)
            except LostUploadError:
                record.forget()
                self._advance(-upload.offset)
                raise TransientError(RemoteError("the registry dropped an upload", hint="try again")) from None
            except RemoteError as error:
                if upload.offset or error.details.get("status") not in _NO_PIECES:
                    raise
                record.forget()
                return self._whole(stream)
            record.forget()
            return self._blob.size - upload.found

    def _upload(self, record: SessionRecord) -> ChunkedUpload:
        found = self._usable(record.found)
        session = found or Session.now(*self._begin())
        if not found:
            record.note(session)
        return ChunkedUpload(
            self._transport,
            self._scope,
            session.location,
            max(self._sizes.chunk, session.minimum),
            note=lambda location: record.note(session.moved(location)),
            begun=not found,
        )

    def _usable(self, session: Session | None) -> Session | None:
        if session is None:
            return None
        try:
            return session.moved(self._transport.resolve(session.location, self._url))
        except UnsafeError:  # what is noted is judged as what a registry says
            return None
