"""The client of OCI registries: a subclass of oras' provider with its own transport.

Kept from oras: the session with its cookie policy, headers, and the parsing of references into URLs. Replaced: requests
(no time limits, retries anything, gives tokens to any host), uploads (whole blob in memory), downloads (unverified),
manifests (made anew, so digests change) and authentication (one token for everything).

Importing this module takes a quarter of a second because oras does; import it inside the function that needs it.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlsplit

import oras.container
import oras.provider
import requests

from bentotool.errors import AuthenticationError, NotFoundError, RemoteError, VerificationError
from bentotool.oci.auth import Authenticator, Scope
from bentotool.oci.credentials import CredentialStore
from bentotool.oci.descriptor import (
    INDEX,
    MANIFEST,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    canonical_json,
    parse_json_object,
)
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.downloads import Buffer, Download, RemoteBlob, Sink
from bentotool.oci.manifests import FetchedManifest, check_manifest, check_stated_digest
from bentotool.oci.origins import home_of
from bentotool.oci.reference import RemoteReference
from bentotool.oci.retry import RetryPolicy, TransientError
from bentotool.oci.sending import Sending
from bentotool.oci.sessions import UploadJournal
from bentotool.oci.tls import Tls
from bentotool.oci.transport import Timeouts, Transport, read_body
from bentotool.oci.uploads import Advance, UploadSizes

__all__ = ["FetchedManifest", "Registry", "ignore_progress"]

_MAX_PAGES = 200
_MANIFESTS = (INDEX, MANIFEST)
_PATH = re.compile(r"/v2/(?P<repository>.+)/(?:blobs|manifests|tags|referrers)/")
_ANY_STATUS = tuple(range(200, 600))


def ignore_progress(count: int) -> None:
    """Takes progress that nobody watches."""


class Registry(oras.provider.Registry):  # type: ignore[misc]
    """One registry, for one kind of use.

    Safe to use from several threads.

    Args:
        registry: ``host[:port]`` as the user names it; ``docker.io`` is Docker Hub.
        push: whether content will be written; a client that only reads never asks for more.
        plain_http: True for HTTP, False for HTTPS, None for HTTP on this machine's own addresses alone.
        credentials: where credentials come from.
        tls: certificates, where the registry speaks HTTPS.
        stop: set it to end everything under way.
        connections: how many transfers run at once.
    """

    def __init__(
        self,
        registry: str,
        *,
        push: bool = False,
        plain_http: bool | None = None,
        credentials: CredentialStore | None = None,
        tls: Tls | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        sizes: UploadSizes | None = None,
        stop: threading.Event | None = None,
        connections: int = 8,
    ) -> None:
        self.registry = registry
        loopback = RemoteReference(registry, "any").is_loopback
        insecure = loopback if plain_http is None else plain_http
        home = home_of(registry, "http" if insecure else "https")
        self._netloc = str(home).partition("://")[2]
        super().__init__(hostname=self._netloc, insecure=insecure)
        # A proxy can reach neither this machine's loopback nor has it any business there.
        self.session.trust_env = not loopback
        self._actions = ("pull", "push") if push else ("pull",)
        self._sizes = sizes or UploadSizes.configured()
        store = credentials or CredentialStore()
        self._transport = Transport(
            self.session,
            registry,
            home,
            tls=tls,
            timeouts=timeouts,
            retry=retry,
            stop=stop,
            connections=connections,
        )
        self.auth = self._transport.authenticator = Authenticator(
            registry,
            home,
            lambda repository, actions: store.find(registry, repository, actions),
            self._transport.fetch_token,
        )

    @property
    def stop(self) -> threading.Event:
        """Set it to end every transfer under way soon, and to begin no other."""
        return self._transport.stop

    @classmethod
    def for_reference(cls, reference: RemoteReference, **options: Any) -> Registry:
        """The registry a reference names."""
        return cls(reference.registry, **options)

    def close(self) -> None:
        """Close all connections."""
        self.session.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _container(self, repository: str) -> Any:
        # With its port the host is never mistaken for the first part of a name ("localhost/iris").
        return oras.container.Container(f"{self._netloc}/{repository}")

    def _url(self, path: str) -> str:
        return f"{self.prefix}://{path}"

    def _scope(self, repository: str, mount_from: str = "") -> Scope:
        return Scope(repository, self._actions, mount_from)

    # What oras' own methods call, and those of its methods that must not be reached.

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: dict[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
    ) -> requests.Response:
        """What inherited methods send their requests through; statuses are theirs to judge."""
        found = _PATH.search(urlsplit(url).path)
        scope = self._scope(found["repository"]) if found else Scope()
        body = (lambda: data) if data is not None else None
        return self._transport.request(method, url, scope, headers=headers, body=body, accept=_ANY_STATUS)

    def push(self, *arguments: Any, **options: Any) -> NoReturn:
        """Not supported: oras' own push loads blobs whole."""
        raise NotImplementedError("use upload_blob and upload_manifest")

    def pull(self, *arguments: Any, **options: Any) -> NoReturn:
        """Not supported: oras' own pull verifies nothing and can write outside its folder."""
        raise NotImplementedError("use get_manifest and download_blob")

    def ping(self) -> None:
        """Check that the registry answers and accepts the credentials, without naming a repository.

        Raises:
            AuthenticationError: when it does not.
            RemoteError: when it is no registry.
        """
        try:
            self._transport.request("GET", self._url(f"{self._netloc}/v2/"), Scope()).close()
        except NotFoundError:
            raise RemoteError(f"{self.registry} is not an OCI registry") from None

    def blob_exists(self, repository: str, digest: str, size: int | None = None) -> bool:
        """Whether a repository is known to have a blob.

        403 and 405 count as no: storage behind some registries refuses HEAD though it allows GET, and where access is
        really refused the next request says so.

        Raises:
            VerificationError: when it has another size there; registries take no blob again that they think they have.
        """
        url = self._url(self._container(repository).get_blob_url(check_digest(digest)))
        accept = (200, 403, 404, 405)
        with self._transport.request("HEAD", url, self._scope(repository), accept=accept) as response:
            found = response.status_code == requests.codes.ok
            announced = response.headers.get("Content-Length", "")
        # Some answer HEAD with a length of 0 or none.
        if found and size and announced.isascii() and announced.isdigit() and int(announced) not in (0, size):
            raise VerificationError(
                f"{self.registry}/{repository} has {int(announced)} bytes, not {size}, for blob {digest}",
                hint="it is damaged there, and its operator has to delete it; then push again",
            )
        return found

    def upload_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        open_stream: Callable[[], BinaryIO],
        *,
        mount_from: Sequence[str] = (),
        journal: UploadJournal | None = None,
        advance: Advance = ignore_progress,
    ) -> int:
        """Make a repository have a blob: nothing to do, else a mount, else an upload.

        Args:
            open_stream: opens the bytes, raw and seekable, exactly ``descriptor.size`` of them.
            mount_from: repositories of this registry that may have it.
            journal: where it is noted how far the upload of a large blob is, for another process to go on with.
            advance: told the progress; it adds up to ``descriptor.size`` whichever way is taken.

        Returns:
            The bytes sent: 0, or ``descriptor.size`` less what an earlier process had sent.
        """
        if self.blob_exists(repository, descriptor.digest, descriptor.size):
            advance(descriptor.size)
            return 0
        for source in mount_from:
            if source != repository and self._mount(repository, descriptor.digest, source):
                advance(descriptor.size)
                return 0
        sending = Sending(
            self._transport,
            self.registry,
            self._url(self._container(repository).upload_blob_url()),
            self._scope(repository),
            descriptor,
            sizes=self._sizes,
            exists=lambda: self.blob_exists(repository, descriptor.digest),
            journal=journal,
            advance=advance,
        )
        with open_stream() as stream:
            return sending.run(stream)

    def _mount(self, repository: str, digest: str, source: str) -> bool:
        url = self._url(self._container(repository).upload_blob_url()) + f"?mount={digest}&from={source}"
        try:
            # 202 opens an upload instead; the registry forgets it when it is not used.
            response = self._transport.request("POST", url, self._scope(repository, source), accept=(201, 202))
        except (AuthenticationError, NotFoundError):
            return False
        with response:
            return response.status_code == requests.codes.created

    def download_blob(
        self, repository: str, descriptor: Descriptor, sink: Sink, *, advance: Advance = ignore_progress
    ) -> None:
        """Stream a blob into ``sink``, going on where a broken connection left it. The sink verifies the digest.

        Raises:
            VerificationError: when the registry has a blob of another size.
            NotFoundError: when it does not have it.
        """
        url = self._url(self._container(repository).get_blob_url(check_digest(descriptor.digest)))
        Download(self._transport, url, self._scope(repository), descriptor, sink, advance=advance).run()

    def open_blob(self, repository: str, descriptor: Descriptor) -> BinaryIO:
        """A blob as a raw, seekable stream, read while it arrives; see :class:`RemoteBlob` for what is checked."""
        url = self._url(self._container(repository).get_blob_url(check_digest(descriptor.digest)))
        where = f"{self.registry}/{repository}"
        return RemoteBlob(self._transport, url, self._scope(repository), descriptor, where)  # type: ignore[return-value]

    def read_blob(self, repository: str, descriptor: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
        """A small blob, verified, in memory.

        Raises:
            VerificationError: when it is larger than ``limit`` bytes or its bytes do not match its descriptor.
        """
        if descriptor.size > limit:
            raise VerificationError(
                f"blob {descriptor.digest} has {descriptor.size} bytes, more than the {limit} allowed"
            )
        buffer = Buffer()
        self.download_blob(repository, descriptor, buffer)
        if sha256_bytes(bytes(buffer.data)) != descriptor.digest:
            raise VerificationError(f"registry {self.registry} gave other bytes for {descriptor.digest}")
        return bytes(buffer.data)

    def get_manifest(self, repository: str, reference: str, types: Sequence[str] = _MANIFESTS) -> FetchedManifest:
        """The manifest or index under a tag or digest, of one of ``types``: exact bytes, at most 4 MiB, verified.

        Raises:
            NotFoundError: when there is none.
            VerificationError: when its digest, type or shape is not what it must be.
        """
        url = self._url(self._container(repository).manifest_url(reference))
        headers = {"Accept": ", ".join(types)}

        def attempt() -> FetchedManifest:
            response = self._transport.request("GET", url, self._scope(repository), headers=headers, retry=False)
            with response:
                data = read_body(self._transport, response, MANIFEST_LIMIT, f"the manifest of {repository}")
            return check_manifest(response.headers, data, reference, f"the manifest of {repository}", types)

        try:
            return self._transport.retry.run(attempt, self._transport.stop)
        except NotFoundError:
            separator = "@" if reference.startswith("sha256:") else ":"
            raise NotFoundError(
                f"registry {self.registry} has no {repository}{separator}{reference}",
                hint=f"its tags: bentotool list {self.registry}/{repository}",
            ) from None

    def manifest_exists(self, repository: str, reference: str) -> bool:
        """Whether a tag or digest has a manifest."""
        url = self._url(self._container(repository).manifest_url(reference))
        headers = {"Accept": f"{INDEX}, {MANIFEST}"}
        with self._transport.request(
            "HEAD", url, self._scope(repository), headers=headers, accept=(200, 404)
        ) as response:
            return response.status_code == requests.codes.ok

    def upload_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> bool:
        """Put exact bytes under a tag or their digest.

        Returns:
            Whether the registry recorded its ``subject`` by itself (``OCI-Subject``).

        Raises:
            VerificationError: when the registry states another digest for them.
        """
        url = self._url(self._container(repository).manifest_url(reference))
        headers = {"Content-Type": media_type}
        with self._transport.request(
            "PUT", url, self._scope(repository), headers=headers, body=lambda: data, accept=(201,)
        ) as response:
            check_stated_digest(response.headers, sha256_bytes(data), f"the manifest of {repository}")
            return bool(response.headers.get("OCI-Subject"))

    def get_tags(self, repository: str) -> list[str]:
        """All tags of a repository, whatever the number of pages."""
        what = f"the tags of {repository}"
        tags: list[str] = []
        try:
            for page in self._pages(repository, self._url(self._container(repository).tags_url()), what):
                found = page.get("tags") or []
                if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
                    raise VerificationError(f"{what} are not a list of names")
                tags += found
        except NotFoundError:
            raise NotFoundError(f"registry {self.registry} has no {repository}", hint="check the name") from None
        return tags

    def get_referrers(
        self, repository: str, digest: str, artifact_type: str | None = None, limit: int | None = None
    ) -> tuple[Descriptor, ...]:
        """Manifests that name ``digest`` as their subject: the referrers API, else the tag ``sha256-<hex>``.

        Args:
            artifact_type: leave out those of other types, which a registry may or may not do by itself.
            limit: ask no further once there are so many.
        """
        url = self._url(f"{self._netloc}/v2/{repository}/referrers/{check_digest(digest)}")

        def entries() -> Iterator[Descriptor]:
            try:
                for page in self._pages(repository, url, f"the referrers of {digest}", {"Accept": INDEX}):
                    yield from Index.from_bytes(canonical_json(page)).manifests
            except NotFoundError:  # no such API
                with contextlib.suppress(NotFoundError):
                    yield from Index.from_bytes(self.get_manifest(repository, digest.replace(":", "-")).data).manifests

        return tuple(islice((each for each in entries() if artifact_type in (None, each.artifact_type)), limit))

    def _pages(
        self, repository: str, url: str, what: str, headers: dict[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The JSON objects of a list that is given page by page (RFC 8288, ``rel="next"``)."""
        for _ in range(_MAX_PAGES):
            with self._transport.request("GET", url, self._scope(repository), headers=headers) as response:
                page = parse_json_object(self._read(response, what), what)
            yield page
            following = response.links.get("next", {}).get("url")
            if not following:
                return
            url = self._transport.resolve(following, url, elsewhere=False)
        raise VerificationError(f"registry {self.registry} has more than {_MAX_PAGES} pages of {what}")

    def _read(self, response: requests.Response, what: str) -> bytes:
        try:
            return read_body(self._transport, response, MANIFEST_LIMIT, what)
        except TransientError as failure:
            raise failure.error from None
