"""Requests to an API server, with plain objects: those that are made here, and what it says of them.

Sources: Kubernetes API concepts (discovery, watch, ``fieldValidation``, ``dryRun``, chunked lists), server-side apply.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from bentotool.errors import RemoteError
from bentotool_k8s.cluster.connection import Connection
from bentotool_k8s.cluster.refusals import ApiError, refusal

__all__ = ["MANAGER", "Api", "Kind", "Object", "WatchEvent", "kind_of", "name_of", "title"]

Object = Mapping[str, Any]
MANAGER = "bentotool"
"""Our name among those who set fields of objects."""

_BUSY = (429, 502, 503, 504)
_TRIES = 3
_PAGE = "500"
_WATCH_S = 240


@dataclass(frozen=True)
class Kind:
    """A kind that the cluster knows."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool


@dataclass(frozen=True)
class WatchEvent:
    """``type`` is ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``."""

    type: str
    object: Object


def kind_of(item: Object) -> tuple[str, str]:
    """``apiVersion`` and ``kind``."""
    return str(item["apiVersion"]), str(item["kind"])


def name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


def title(item: Object) -> str:
    """What an object is called for people, such as ``Deployment iris``."""
    return f"{item['kind']} {name_of(item)}"


class Api:
    """One namespace of a cluster.

    Args:
        connection: the cluster; closed with this.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.namespace = connection.namespace
        self.warnings: list[str] = []
        """What the server warned of, each once."""
        self._kinds: dict[tuple[str, str], Kind | None] = {}

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    # -- what the cluster knows

    def kind(self, api_version: str, kind: str) -> Kind | None:
        """A kind, or None where the cluster has none of the name."""
        if (api_version, kind) not in self._kinds:
            base = "api" if "/" not in api_version else "apis"
            try:
                found = self._json("GET", f"/{base}/{api_version}").get("resources") or ()
            except ApiError as error:
                if error.status != 404:
                    raise
                found = ()
            for each in found:
                if "/" not in each["name"]:
                    known = Kind(api_version, each["kind"], each["name"], bool(each.get("namespaced")))
                    self._kinds.setdefault((api_version, each["kind"]), known)
            self._kinds.setdefault((api_version, kind), None)
        return self._kinds[api_version, kind]

    def _path(self, api_version: str, kind: str, name: str = "") -> str:
        known = self.kind(api_version, kind)
        if known is None:
            raise RemoteError(
                f"the cluster knows no {kind} of {api_version}",
                hint="it is too old, or what brings it is not installed",
            )
        base = "api" if "/" not in api_version else "apis"
        space = f"/namespaces/{self.namespace}" if known.namespaced else ""
        return f"/{base}/{api_version}{space}/{known.plural}" + (f"/{name}" if name else "")

    # -- objects

    def get(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return self._json("GET", self._path(api_version, kind, name))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def find(self, api_version: str, kind: str, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """All objects of a kind."""
        return self.listed(api_version, kind, labels, fields)[0]

    def listed(
        self, api_version: str, kind: str, labels: str = "", fields: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        """All objects of a kind, and the resource version that a watch goes on from."""
        query = {"limit": _PAGE, **_selectors(labels, fields)}
        found: list[dict[str, Any]] = []
        while True:
            page = self._json("GET", self._path(api_version, kind), query=query)
            found += [{"apiVersion": api_version, "kind": kind, **each} for each in page.get("items") or ()]
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion", ""))
            query["continue"] = str(meta["continue"])

    def apply(
        self, item: Object, *, force: bool = False, dry_run: bool = False, version: str = "", strict: bool = True
    ) -> dict[str, Any]:
        """Make an object so, as far as it says something, under our name; it may be new.

        Args:
            force: take over fields that others set.
            version: resource version that it has; where it has another by now, nothing is done.

        Raises:
            ApiError: see :mod:`~bentotool_k8s.cluster.refusals`.
        """
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict" if strict else "Warn"}
        query |= {"force": "true"} if force else {}
        query |= {"dryRun": "All"} if dry_run else {}
        meta = {**item["metadata"], "namespace": self.namespace, **({"resourceVersion": version} if version else {})}
        body = json.dumps({**item, "metadata": meta}).encode()
        path = self._path(*kind_of(item), name_of(item))
        return self._json("PATCH", path, query=query, body=body, kind="application/apply-patch+yaml", what=title(item))

    def delete(self, item: Object, *, foreground: bool = False) -> bool:
        """Remove this very object, not one that has taken its name since; False where it is gone already."""
        options = {
            "apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": "Foreground" if foreground else "Background",
            "preconditions": {"uid": item["metadata"]["uid"]},
        }  # fmt: skip
        try:
            self._json(
                "DELETE", self._path(*kind_of(item), name_of(item)), body=json.dumps(options).encode(), what=title(item)
            )
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and error.reason == "Conflict"):
                return False
            raise
        return True

    # -- what goes on

    def watch(
        self, api_version: str, kind: str, version: str, labels: str = "", *, opened: list[Any] | None = None
    ) -> Iterator[WatchEvent]:
        """What changes from a resource version on, until the server ends the stream.

        Args:
            opened: is given the answer as soon as it is there, so that another thread can end it.

        Raises:
            ApiError: with status 410, the server does not remember that version any more: list, and watch from there.
        """
        query = {
            "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_S),
            **_selectors(labels, ""),
        }  # fmt: skip
        path = self._path(api_version, kind)
        answer = self.connection.request("GET", path, query=query, stream=True, read_s=_WATCH_S + 30)
        if opened is not None:
            opened.append(answer)
        if answer.status != 200:
            raise self._refused(answer, "GET", path)
        for line in self._lines(answer):
            try:
                event = json.loads(line)
                kind_said, item = str(event["type"]), event["object"]
            except (ValueError, KeyError, TypeError):
                raise RemoteError(f"the cluster at {self.connection.server} sends no events that can be read") from None
            if kind_said == "ERROR":
                raise refusal(int(item.get("code") or 500), item, self.connection, f"watch {kind}")
            yield WatchEvent(kind_said, {"apiVersion": api_version, "kind": kind, **item})

    def log(
        self, pod: str, container: str, *, tail: int = 0, follow: bool = False, previous: bool = False,
        since: str = "", times: bool = False, opened: list[Any] | None = None,
    ) -> Iterator[str]:  # fmt: skip
        """Lines of a container's log.

        Args:
            tail: the last ones; 0: all.
            previous: of the run before the last restart.
            since: RFC 3339; only what came after.
            times: each line starts with its time and a space.
        """
        query = {"container": container}
        query |= {"tailLines": str(tail)} if tail else {}
        query |= {"follow": "true"} if follow else {}
        query |= {"previous": "true"} if previous else {}
        query |= {"sinceTime": since} if since else {}
        query |= {"timestamps": "true"} if times else {}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        answer = self.connection.request("GET", path, query=query, stream=True, read_s=3600 if follow else 30)
        if opened is not None:
            opened.append(answer)
        if answer.status != 200:
            raise self._refused(answer, "GET", path)
        yield from (line.decode("utf-8", "replace") for line in self._lines(answer))

    def _lines(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        rest = b""
        try:
            for piece in answer.stream(None, decode_content=True):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line for line in lines if line)
            if rest:
                yield rest
        except (HTTPError, OSError) as error:
            raise self.connection.broken(error) from None
        finally:
            answer.close()

    # -- one answer

    def _json(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None,
        kind: str = "application/json", what: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        for attempt in range(_TRIES):
            answer = self.connection.request(method, path, query=query, body=body, kind=kind)
            if answer.status not in _BUSY or attempt == _TRIES - 1:
                break
            wait = answer.headers.get("Retry-After", "")
            time.sleep(min(int(wait), 10) if wait.isdecimal() else 0.5 * (attempt + 1))
        self._note_warnings(answer)
        if not 200 <= answer.status < 300:
            raise self._refused(answer, method, path, what)
        found = _document(answer.data)
        if found is None or "kind" not in found:
            raise RemoteError(
                f"{self.connection.server} answers, but not as a Kubernetes API does",
                hint="check the server of the context: kubectl cluster-info",
            )
        return found

    def _refused(self, answer: urllib3.BaseHTTPResponse, method: str, path: str, what: str = "") -> RemoteError:
        try:
            status = _document(answer.data) or {}
        except (HTTPError, OSError) as error:
            return self.connection.broken(error)
        return refusal(answer.status, status, self.connection, what or f"{method} {path}")

    def _note_warnings(self, answer: urllib3.BaseHTTPResponse) -> None:
        for value in answer.headers.getlist("Warning") if hasattr(answer.headers, "getlist") else ():
            code, _, rest = value.partition(" ")
            text = rest.partition('"')[2].rpartition('"')[0].replace('\\"', '"') or rest
            if code == "299" and text and text not in self.warnings:
                self.warnings.append(text)


def _document(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {**({"labelSelector": labels} if labels else {}), **({"fieldSelector": fields} if fields else {})}
