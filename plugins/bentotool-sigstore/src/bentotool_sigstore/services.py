"""The services that take part in signing, each with a limit on every wait and a word on what failed.

They stand in for the clients of the sigstore library: its signer calls the methods of those; these pass the calls on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from bentotool.errors import AuthenticationError, BentotoolError, RemoteError
from bentotool_sigstore.limits import limited, within

if TYPE_CHECKING:
    import requests
    from cryptography.x509 import Certificate

__all__ = ["CertificateAuthority", "TimestampAuthority", "TransparencyLog"]

Result = TypeVar("Result")
_PUBLIC, _STATUS = ".sigstore.dev", "https://status.sigstore.dev"
_REFUSED = (400, 401, 403)


class _Service:
    """A client of the library.

    Args:
        name: for messages.
        client: with ``url``, and with a session for the thread that asks for it.
    """

    name: str

    def __init__(self, client: Any, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self.url: str = client.url

    @property
    def _at(self) -> str:
        return f"{self.name} at {self.url}"

    @property
    def _hint(self) -> str:
        return f"try again; {_STATUS} tells of trouble" if _PUBLIC in self.url else "try again, or ask its operator"

    def _ask(self, call: Callable[[], Result]) -> Result:
        def bounded(over: threading.Event) -> Result:
            # made in this thread, and used in no other
            session = self._client.session if hasattr(self._client, "session") else self._client._session
            with limited(session, self.url, self._seconds, over):
                return call()

        try:
            return within(self._seconds, self._at, bounded, hint=self._hint)
        except BentotoolError:
            raise
        except Exception as error:  # the library's, of many kinds, and what a wrong answer makes of it
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> BentotoolError:
        import requests

        answer = _response_of(error)
        if answer is not None:
            return RemoteError(f"{self._at} answered {answer.status_code}{_said(answer)}", hint=self._hint)
        chain = _chain(error)
        if any(isinstance(each, (requests.Timeout, TimeoutError)) for each in chain):
            return RemoteError(f"{self._at} did not answer within {self._seconds:g} s", hint=self._hint)
        if any(isinstance(each, requests.ConnectionError) for each in chain):
            return RemoteError(f"{self._at} cannot be reached: {_reason(error)}", hint=self._hint)
        return RemoteError(f"{self._at} gave a wrong answer: {_reason(error)}", hint=self._hint)


class CertificateAuthority(_Service):
    """Fulcio.

    Attributes:
        issued: the last certificate.
    """

    name = "Fulcio"
    issued: Certificate | None = None

    @property
    def signing_cert(self) -> CertificateAuthority:
        return self

    def post(self, request: Any, identity: Any) -> Any:
        answer = self._ask(lambda: self._client.signing_cert.post(request, identity))
        self.issued = answer.cert
        return answer

    def _failure(self, error: Exception) -> BentotoolError:
        answer = _response_of(error)
        if answer is not None and answer.status_code in _REFUSED:
            return AuthenticationError(
                f"{self._at} refused the identity token ({answer.status_code}){_said(answer)}",
                hint="it has to be for the audience 'sigstore', not expired, and of an issuer that this Fulcio knows",
            )
        return super()._failure(error)


class TransparencyLog(_Service):
    """Rekor, of either version."""

    name = "Rekor"

    @property
    def tells_time(self) -> bool:
        """Whether it signs the time of an entry: that of version 2 does not."""
        return self.url.endswith("/api/v1")

    def create_entry(self, payload: Any) -> Any:
        return self._ask(lambda: self._client.create_entry(payload))

    def _build_dsse_request(self, envelope: Any, certificate: Certificate) -> Any:
        return self._client._build_dsse_request(envelope=envelope, certificate=certificate)


class TimestampAuthority(_Service):
    """A timestamp authority. That it fails, is no failure to the library, which then makes what nobody can verify.

    Args:
        note: told that it failed where that can be done without; None: it cannot.
    """

    name = "the timestamp authority"

    def __init__(self, client: Any, seconds: float, note: Callable[[str], None] | None) -> None:
        super().__init__(client, seconds)
        self._note = note

    def request_timestamp(self, signature: bytes) -> Any:
        from sigstore._internal.timestamp import TimestampError

        try:
            return self._ask(lambda: self._client.request_timestamp(signature))
        except RemoteError as error:
            if self._note is None:
                raise
            self._note(f"{error.message}; the log's time stands alone")
            raise TimestampError(error.message) from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and those that led to it."""
    found = [error]
    while (before := found[-1].__cause__ or found[-1].__context__) is not None and len(found) < 10:
        found.append(before)
    return found


def _response_of(error: BaseException) -> requests.Response | None:
    """The answer that an error speaks of."""
    import requests

    answers = [each.response for each in _chain(error) if isinstance(each, requests.HTTPError)]
    return next((each for each in answers if each is not None), None)


def _said(answer: requests.Response) -> str:
    """What the body says, in one line."""
    try:
        said = json.loads(answer.content[: 16 << 10])["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f": {_line(str(said))}"


def _reason(error: BaseException) -> str:
    return _line(str(_chain(error)[-1]) or type(error).__name__)


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
