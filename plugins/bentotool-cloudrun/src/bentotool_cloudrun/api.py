"""The Admin API v2 of Cloud Run over HTTP: each request ends, and is asked again where that is safe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import RemoteError
from bentotool_cloudrun.account import Place, endpoint, login, place_of, refused

__all__ = ["ATTEMPT", "CloudRun", "Refusal", "connect"]

ATTEMPT = "io.bentotool.deployment.attempt"
"""Annotation of a service: who wrote it last, so that an answer that was lost is known when it is seen."""

_CONNECT_S, _READ_S, _TOKEN_S = 10, 60, 60
_TRIES = 5
_LONGEST_PAUSE_S = 30.0
_AGAIN = frozenset({429, 500, 502, 503, 504})
_PAGES = 50


@dataclass
class Refusal(Exception):
    """An answer of the API that is none of success (google.rpc.Status in JSON).

    Args:
        http: status of the answer.
        status: its canonical name, such as ``PERMISSION_DENIED``.
        message: for people, of several lines perhaps.
        reasons: of its details (google.rpc.ErrorInfo).
    """

    http: int
    status: str
    message: str
    reasons: tuple[str, ...] = ()


@dataclass
class CloudRun:
    """One project and region.

    Args:
        place: which.
        session: sends with the credentials.
        root, logs_root: where Cloud Run and Cloud Logging answer.
        pause: waits for so many seconds.
    """

    place: Place
    session: Any
    root: str
    logs_root: str
    pause: Callable[[float], None] = time.sleep
    told: Callable[[str], None] = field(default=lambda text: None)

    def service(self, name: str) -> dict[str, Any] | None:
        """A service as it stands; None: there is none."""
        try:
            return self._send("GET", f"{self.place.path}/services/{name}")
        except Refusal as error:
            if error.http == 404:
                return None
            raise

    def services(self) -> Iterator[dict[str, Any]]:
        """All services of the place."""
        token = ""
        for _ in range(_PAGES):
            page = self._send("GET", f"{self.place.path}/services", params={"pageSize": 100, "pageToken": token})
            yield from page.get("services") or ()
            token = str(page.get("nextPageToken") or "")
            if not token:
                return

    def revision(self, service: str, name: str) -> dict[str, Any]:
        """A revision of a service."""
        return self._send("GET", f"{self.place.path}/services/{service}/revisions/{name}")

    def operation(self, name: str) -> dict[str, Any]:
        """A long-running operation."""
        return self._send("GET", name)

    def create(self, name: str, body: Mapping[str, Any], attempt: str) -> dict[str, Any]:
        """Begin to make a service; gives the operation, of no name where its answer was lost."""
        path, params = f"{self.place.path}/services", {"serviceId": name}
        return self._write("POST", path, name, _marked(body, attempt), attempt, params)

    def update(self, name: str, body: Mapping[str, Any], etag: str, attempt: str) -> dict[str, Any]:
        """Begin to put a service in the place of what stands, if that is what ``etag`` says."""
        return self._write(
            "PATCH", f"{self.place.path}/services/{name}", name, {**_marked(body, attempt), "etag": etag}, attempt, {}
        )

    def delete(self, name: str, etag: str = "") -> dict[str, Any]:
        """Begin to remove a service."""
        return self._send("DELETE", f"{self.place.path}/services/{name}", params={"etag": etag} if etag else {})

    def entries(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Log entries (``entries.list`` of Cloud Logging v2)."""
        found = self._send("POST", "v2/entries:list", body=query, root=self.logs_root)
        return list(found.get("entries") or ())

    def _write(
        self, method: str, path: str, name: str, body: Mapping[str, Any], attempt: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            return self._send(method, path, body=body, params=params)
        except (Refusal, RemoteError) as error:
            # it may have been done, and its answer lost; asked again it is then a conflict with ourselves
            if isinstance(error, Refusal) and error.http not in (*_AGAIN, 409):
                raise
            standing = self.service(name)
            if standing is not None and (standing.get("annotations") or {}).get(ATTEMPT) == attempt:
                return {"name": "", "done": False}
            raise

    def _send(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None, root: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        url = (root or f"{self.root}v2/") + path
        for tried in range(1, _TRIES + 1):
            answer = self._ask(method, url, body, params, last=tried == _TRIES)
            if answer is None:
                self.pause(_pause(tried, ""))
            elif answer.status_code in _AGAIN and tried < _TRIES and not _is_quota(answer):
                self.told(f"Cloud Run answers {answer.status_code}; again in a moment")
                self.pause(_pause(tried, answer.headers.get("Retry-After", "")))
            else:
                return _document(answer)
        raise AssertionError  # the last try gave or raised something

    def _ask(
        self, method: str, url: str, body: Mapping[str, Any] | None, params: Mapping[str, Any] | None, *, last: bool
    ) -> Any:
        """The answer, or None where the connection broke and is to be tried again."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        try:
            return self.session.request(
                method, url, json=body, params=params, timeout=(_CONNECT_S, _READ_S), allow_redirects=False,
                max_allowed_time=_CONNECT_S + _TOKEN_S + 2 * _READ_S,
            )  # fmt: skip
        except GoogleAuthError as error:
            raise refused(error) from None
        except requests.RequestException as error:
            if last:
                host = url.split("/")[2]
                raise RemoteError(
                    f"{host} does not answer: {_why(error)}", hint="see the network, and try again"
                ) from None
            return None


def connect(values: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> CloudRun:
    """A client for the place that options and facts name.

    Raises:
        AuthenticationError: no credentials.
        UsageError: no project or region.
    """
    from google.auth.transport import requests as transport

    root = endpoint("run", "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN")
    logs_root = endpoint("logging", "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING")
    credentials, project = login()
    place = place_of(values, recorded, project)
    open_session: Any = transport.AuthorizedSession  # its types are not told
    return CloudRun(place, open_session(credentials, refresh_timeout=_TOKEN_S), root, logs_root)


def _marked(body: Mapping[str, Any], attempt: str) -> dict[str, Any]:
    return {**body, "annotations": {**body.get("annotations", {}), ATTEMPT: attempt}}


def _pause(tried: int, asked: str) -> float:
    if asked.isdigit():
        return min(float(asked), _LONGEST_PAUSE_S)
    return min(2.0 ** (tried - 1), _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311 - to spread callers


def _is_quota(answer: Any) -> bool:
    """A 429 that no pause helps: not so many requests, but so many of something."""
    return answer.status_code == 429 and "quota" in answer.text.lower() and "per minute" not in answer.text.lower()


def _document(answer: Any) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if answer.status_code < 300 and isinstance(document, dict):
        return document
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        raise Refusal(answer.status_code, "", " ".join(answer.text.split())[:300] or answer.reason)
    details = [each for each in error.get("details") or () if isinstance(each, dict)]
    messages = [str(error.get("message", ""))]
    for each in details:  # google.rpc.BadRequest
        messages += [f"{v.get('field')}: {v.get('description')}" for v in each.get("fieldViolations") or ()]
    reasons = tuple(str(each["reason"]) for each in details if each.get("reason"))
    raise Refusal(answer.status_code, str(error.get("status", "")), "; ".join(dict.fromkeys(messages)), reasons)


def _why(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return "time is up"
    text = " ".join(str(error).split())
    return text.rsplit(": ", 1)[-1].strip("')>\"")[:160] or type(error).__name__
