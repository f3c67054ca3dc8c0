"""Uploads in pieces, which go on after a broken connection (distribution-spec, "Pushing a blob in chunks")."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import BinaryIO

import requests

from bentotool.errors import NotFoundError, RemoteError
from bentotool.oci.auth import Scope
from bentotool.oci.retry import TransientError
from bentotool.oci.transport import Transport
from bentotool.oci.uploads import OCTETS, Advance, BodySource, with_digest

__all__ = ["ChunkedUpload", "LostUploadError"]

_PROGRESS = 1 << 20  # bytes that make a broken try count as a step forward rather than as a failure
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})", re.ASCII)
_UNKNOWN = (400, 405, 410, 416, 501)  # besides 404: how registries say that they cannot tell where an upload stands


class LostUploadError(Exception):
    """The registry does not know an upload any more, or never tells of it; another one may be begun."""


class ChunkedUpload:
    """One upload session that takes a blob piece by piece.

    After a failed piece the registry is asked how far it got, and the next piece starts there.

    Args:
        location: where the registry takes the next piece.
        chunk: bytes of a piece; the last one may be shorter.
        note: told of each further location, for another process to go on from.
        begun: False when the session is another process's, so that the registry must be asked first.

    Attributes:
        offset: bytes that the registry has taken.
        found: of these, how many it had from another process.
    """

    def __init__(
        self,
        transport: Transport,
        scope: Scope,
        location: str,
        chunk: int,
        *,
        note: Callable[[str], None] = lambda location: None,
        begun: bool = True,
    ) -> None:
        self._transport = transport
        self._scope = scope
        self._location = location
        self._chunk = chunk
        self._note = note
        self._unsure = self._others = not begun
        self._setbacks = 0
        self.offset = 0
        self.found = 0

    @property
    def _stop(self) -> threading.Event:
        return self._transport.stop

    def send(self, stream: BinaryIO, digest: str, size: int, advance: Advance) -> None:
        """Send what the registry lacks of a blob, and close the session.

        Raises:
            LostUploadError: when the session is gone; what it took is then still in the progress.
            RemoteError: when the retry policy is used up.
        """
        while self.offset < size:
            self._transport.retry.run(lambda: self._step(stream, size, advance), self._stop)
        self._transport.retry.run(lambda: self._close(digest), self._stop)

    def _step(self, stream: BinaryIO, size: int, advance: Advance) -> None:
        if self._unsure:
            before = self.offset
            self._ask_offset(size, advance)
            # The number of tries is for those that bring nothing; a step forward starts a new count.
            if self.offset == size or self.offset - before >= _PROGRESS:
                return
        length = min(self._chunk, size - self.offset)
        source = BodySource(stream, self.offset, length, advance, self._stop)
        headers = {"Content-Type": OCTETS, "Content-Range": f"{self.offset}-{self.offset + length - 1}"}
        self._unsure = True
        try:
            # 416: the registry has another idea of where we are.
            response = self._transport.request(
                "PATCH", self._location, self._scope, headers=headers, body=source, accept=(202, 416), retry=False
            )
        except NotFoundError as error:
            source.take_back()
            if "status" not in error.details:  # it is the source that is not there
                raise
            raise LostUploadError from error
        except (TransientError, RemoteError):
            source.take_back()
            raise
        with response:
            if response.status_code != requests.codes.accepted:
                source.take_back()
                raise TransientError(RemoteError("the registry lost its place in an upload", hint="try again"))
            self._unsure = False
            self._follow(response, self.offset + length)

    def _follow(self, response: requests.Response, reached: int) -> None:
        if location := response.headers.get("Location"):
            self._location = self._transport.resolve(location, response.url)
        self.offset = reached
        self._note(self._location)

    def _ask_offset(self, size: int, advance: Advance) -> None:
        try:
            response = self._transport.request("GET", self._location, self._scope, accept=(204,), retry=False)
        except NotFoundError as error:
            raise LostUploadError from error
        except RemoteError as error:
            if error.details.get("status") in _UNKNOWN:
                raise LostUploadError from error
            raise
        with response:
            known = _RANGE.fullmatch(response.headers.get("Range", ""))
            # A registry that has nothing yet answers 0-0, as one with a single byte does: start again then.
            reached = int(known[1]) + 1 if known and int(known[1]) else 0
            if reached > size:
                raise RemoteError("the registry has more bytes of an upload than were sent")
            if reached < self.offset:
                self._setbacks += 1
                if self._setbacks > self._transport.retry.attempts:
                    raise RemoteError("the registry loses again and again what it took", hint="try again later")
            if self._others:
                self._others, self.found = False, reached
            advance(reached - self.offset)
            self._unsure = False
            self._follow(response, reached)

    def _close(self, digest: str) -> None:
        url = with_digest(self._location, digest)
        try:
            response = self._transport.request(
                "PUT", url, self._scope, headers={"Content-Length": "0"}, accept=(201,), retry=False
            )
        except NotFoundError as error:  # it may be that an earlier try closed it, and its answer was lost
            raise LostUploadError from error
        except RemoteError as error:
            # What another process left there was not ours after all.
            if self.found and error.details.get("status") == requests.codes.bad_request:
                raise LostUploadError from error
            raise
        response.close()
