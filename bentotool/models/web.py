"""Downloading one file over HTTPS: bounded, checked, and continued where an earlier try broke off.

The host that the user names is trusted; hosts that it redirects to are judged (see :mod:`bentotool.oci.origins`). No
credentials are sent: neither from the URL, which may hold none, nor from a ``.netrc``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from bentotool.errors import NotFoundError, RemoteError, UnsafeError, UsageError, VerificationError
from bentotool.oci.blobs import storage_error
from bentotool.oci.digest import CHUNK, hash_file
from bentotool.oci.origins import Origin, check_reachable, is_internal, origin_of
from bentotool.oci.retry import RETRIED_STATUSES, RetryPolicy, TransientError, retry_after_seconds
from bentotool.oci.tar import check_entry_name
from bentotool.oci.tls import Tls
from bentotool.paths import write_atomic

if TYPE_CHECKING:
    import requests

__all__ = ["download", "file_name", "part_key", "public_address"]

_REDIRECTS = 5
_CONNECT_S, _READ_S = 10.0, 60.0
Told = Callable[[int], None]


def file_name(url: str) -> str:
    """The name of the file that a URL stands for, safe as a name on any disk.

    Raises:
        UnsafeError: when its last part is no portable file name.
        UsageError: when it has none.
    """
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    if not name:
        raise UsageError(f"{url} names no file", hint="give the address of a model file")
    if "/" in name:
        raise UnsafeError(f"{url} does not end in a plain file name")
    return check_entry_name(name)


def public_address(url: str) -> str:
    """A URL without what may be a secret in it: user, query (signatures, tokens) and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _checked_origin(url: str) -> Origin:
    origin = origin_of(url)
    loopback = origin.host in ("localhost", "::1") or (origin.host.startswith("127.") and is_internal(origin.host))
    if origin.scheme != "https" and not loopback:
        raise UnsafeError(f"{url} is not encrypted", hint="use an https:// address")
    return origin


@dataclass
class _Part:
    """What is on disk of a file that is not whole yet, and what it is a part of."""

    path: Path
    validator: str = ""
    total: int | None = None

    @property
    def journal(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def open(self, url: str) -> int:
        """Bytes of an earlier try at the same URL that can be continued."""
        try:
            noted = json.loads(self.journal.read_bytes())
            if noted["url"] == url and noted["validator"]:
                self.validator = str(noted["validator"])
                self.total = noted.get("total")
                return self.path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0

    def note(self, url: str, response: requests.Response) -> None:
        """Remember which content the bytes belong to. A weak validator cannot vouch for a range (RFC 9110 §13.1.5)."""
        tag = response.headers.get("ETag", "")
        self.validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        self.total = _number(response.headers.get("Content-Length", ""))
        noted = {"url": url, "validator": self.validator, "total": self.total}
        write_atomic(self.journal, json.dumps(noted).encode())

    def continued_by(self, response: requests.Response, have: int) -> bool:
        """Whether a partial answer goes on with these bytes: some caches heed Range and overlook If-Range."""
        start, total = _content_range(response)
        if start != have or (None not in (total, self.total) and total != self.total):
            return False
        header = "ETag" if self.validator.startswith('"') else "Last-Modified"
        return response.headers.get(header, self.validator) == self.validator

    def forget(self) -> None:
        self.journal.unlink(missing_ok=True)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Where a partial answer starts, and how long the whole file is; None for what it does not say."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    return _number(span.partition("-")[0]), _number(total)


class _Download:
    def __init__(self, url: str, target: Path, max_bytes: int, advance: Told, expect: Told, tls: Tls) -> None:
        import requests

        from bentotool.oci.connections import PacedAdapter, Timeouts

        self.url, self.max_bytes, self.advance, self.expect, self.tls = url, max_bytes, advance, expect, tls
        self.home = _checked_origin(url)
        self.part = _Part(target.with_name(target.name + ".part"))
        self.session = requests.Session()
        self.session.auth = _no_credentials
        adapter = PacedAdapter(Timeouts(_CONNECT_S, _READ_S), self.home, max_retries=0)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        if not tls.verify:  # the user said so, and was told what it means
            import urllib3

            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.shown = 0

    def run(self) -> None:
        """One whole try: ask for what is missing and write it down."""
        import requests
        import urllib3.exceptions

        have = self.part.open(self.url)
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.part.validator}
        try:
            with self._get(headers) as response:
                self._receive(response, have)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            told = "did not answer" if isinstance(error, requests.ConnectionError) else "broke the connection"
            going_on = self.part.path.is_file() and self.part.path.stat().st_size
            hint = (
                "the same command goes on where this one stopped" if going_on else "check the address and the network"
            )
            raise TransientError(RemoteError(f"{self.home} {told}", hint=hint)) from error
        except OSError as error:
            raise storage_error(error, self.part.path.parent) from error

    def _get(self, headers: dict[str, str]) -> requests.Response:
        url = self.url
        for _ in range(_REDIRECTS + 1):
            response = self._ask(url, headers)
            if not response.is_redirect:
                return response
            url = urljoin(url, response.headers["Location"])
            response.close()
            check_reachable(self.home, origin_of(url))
        raise RemoteError(f"{self.home.host} redirects more than {_REDIRECTS} times")

    def _ask(self, url: str, headers: dict[str, str]) -> requests.Response:
        import requests

        origin = origin_of(url)
        try:
            return self.session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT_S, _READ_S),
                verify=self.tls.verification,
                cert=self.tls.certificate if origin == self.home else None,
            )
        except requests.exceptions.SSLError as error:
            raise RemoteError(
                f"{origin} has no valid TLS certificate, does not speak TLS, or asks for a client's certificate",
                hint="a private authority needs --ca-file; a host that wants a certificate needs --client-cert",
            ) from error

    def _receive(self, response: requests.Response, have: int) -> None:
        status = response.status_code
        if status == 416:  # the part is not of this file, or already all of it: begin again
            self.part.forget()
            raise TransientError(RemoteError(f"{self.home.host} refuses to go on at byte {have}"))
        if status in RETRIED_STATUSES:
            pause = retry_after_seconds(response.headers.get("Retry-After"))
            raise TransientError(RemoteError(f"{self.home.host} answered {status}"), pause)
        if status in (404, 410):
            raise NotFoundError(f"{self.url} does not exist ({status})")
        if status not in (200, 206):
            raise RemoteError(f"{self.url} answered {status}")
        if status == 200:  # the whole file: there was no part, or it is of another version
            have = 0
            self.part.note(self.url, response)
        elif not have or not self.part.continued_by(response, have):
            self.part.forget()
            raise TransientError(RemoteError(f"{self.home.host} sent a part of another file than was asked for"))
        self._write(response, have)

    def _write(self, response: requests.Response, have: int) -> None:
        length = _number(response.headers.get("Content-Length", ""))
        expected = _content_range(response)[1] if have else None
        if expected is None and length is not None:
            expected = have + length
        if expected is not None and expected > self.max_bytes:
            raise self._too_large()
        if expected is not None:
            self.expect(expected)
        self._show(have)
        with self.part.path.open("r+b" if have else "wb") as file:
            file.seek(have)
            file.truncate()
            for piece in response.raw.stream(CHUNK, decode_content=False):
                have += len(piece)
                if have > self.max_bytes:
                    raise self._too_large()
                file.write(piece)
                self._show(have)
        if expected is not None and have < expected:
            raise TransientError(RemoteError(f"{self.home.host} sent {have} of {expected} bytes"))

    def _show(self, have: int) -> None:
        if have > self.shown:
            self.advance(have - self.shown)
            self.shown = have

    def _too_large(self) -> UnsafeError:
        return UnsafeError(
            f"{self.url} is larger than {self.max_bytes} bytes", hint="raise the limit with --max-size if that is right"
        )


def _no_credentials(request: Any) -> Any:
    """Stands where requests would otherwise look into ``.netrc``."""
    return request


def download(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    checksum: str | None,
    advance: Told,
    expect: Told = lambda total: None,
    tls: Tls | None = None,
) -> None:
    """Fetch a URL into a file that appears only when it is whole and right.

    What a broken try left in ``target`` + ``.part`` is continued, when the server can say that it is the same content.

    Args:
        checksum: ``sha256:<hex>`` the file must have.
        advance: told the bytes of each piece, those of an earlier try first.
        expect: told how many bytes the file has, when the server says so.
        tls: how certificates are judged; a client's own is shown to the named host alone.

    Raises:
        RemoteError: the host refused or did not answer.
        NotFoundError: it has no such file.
        UnsafeError: not encrypted, too large, or a redirect to where it must not lead.
        VerificationError: the bytes do not have the checksum; they are removed.
    """
    work = _Download(url, target, max_bytes, advance, expect, tls or Tls())
    RetryPolicy().run(work.run, threading.Event())
    if checksum is not None:
        actual, _ = hash_file(work.part.path)
        if actual != checksum:
            work.part.path.unlink()
            work.part.forget()
            raise VerificationError(f"{url} has {actual}, not {checksum}", hint="ask its publisher which one is right")
    work.part.path.replace(target)
    work.part.forget()


def part_key(url: str) -> str:
    """A folder name for the parts of a URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]
