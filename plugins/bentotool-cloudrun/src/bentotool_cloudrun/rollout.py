"""Bringing a version up beside the one that serves, and sending requests to it only when it is ready.

An update is two writes. The first has the new template, and holds the traffic at the revisions that have it; whatever
becomes of it, they go on serving. The second, once the new revision is ready, gives it the traffic. Each carries the
etag of what it is to replace: of two deployments at once, one is refused.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.errors import BentotoolError, ConflictError, RemoteError, UsageError
from bentotool_cloudrun.api import ATTEMPT, CloudRun, Refusal
from bentotool_cloudrun.explain import failed_condition, not_ready, one_line, refusal
from bentotool_cloudrun.logs import last_line
from bentotool_cloudrun.manifest import BENTO, DIGEST

__all__ = ["Rollout", "short"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
_LATEST = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
_REVISION = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"


def short(path: object) -> str:
    """The last part of a resource's name."""
    return str(path or "").rsplit("/", 1)[-1]


@dataclass
class Rollout:
    """One deployment of one service.

    Args:
        client: of its place.
        name: of the service.
        body: what it is to be, without its traffic.
        image: for messages.
        limit_s: for a revision to become ready.
        progress: told what is waited for.
        note: told what stays to be known.
        moves: the new revision gets the traffic.
        tag: of the new revision; empty for none.
    """

    client: CloudRun
    name: str
    body: Mapping[str, Any]
    image: str
    limit_s: float
    progress: Callable[[str], None]
    note: Callable[[str], None]
    moves: bool = True
    tag: str = ""

    def __post_init__(self) -> None:
        self._attempt = secrets.token_hex(8)

    def create(self, *, wait: bool, committed: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Make the service. What fails or is interrupted is taken away again."""
        if not self.moves:
            raise UsageError(
                f"{self.name} is new: its first revision takes all requests", hint="leave --no-traffic out"
            )
        body = {**self.body, "traffic": [_latest(self.tag)]}
        with self._told("deploy"):
            operation = self.client.create(self.name, body, self._attempt)
        if not wait:
            service = self.client.service(self.name) or {}
            committed(service)
            return service
        try:
            service = self._ready(operation)
        except BaseException as error:
            self._take_back(error)
            raise
        committed(service)
        return service

    def update(
        self, standing: Mapping[str, Any], *, wait: bool, committed: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Put the new version beside what stands, then in its place."""
        held = _held(standing)
        if not self.moves and not held:
            raise UsageError(f"{self.name} has no revision that could keep the traffic", hint="leave --no-traffic out")
        if not held or (not wait and self.moves):
            # Cloud Run itself moves the traffic only to a revision that is ready
            operation = self._write(standing, [_latest(self.tag), *_tagged(held, self.tag)])
            service = self._ready(operation) if wait else self.client.service(self.name) or {}
            committed(service)
            return service
        operation = self._write(standing, held, serves=False)
        if not wait:
            service = self.client.service(self.name) or {}
            committed(service)
            return service
        try:
            service = self._ready(operation)
        except KeyboardInterrupt:
            self.note(f"{self.name} serves as before: the new revision gets no requests")
            raise
        return self._switch(service, held, committed)

    def _switch(
        self, service: Mapping[str, Any], held: list[dict[str, Any]], committed: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Give the new revision its traffic and tag."""
        new = short(service.get("latestReadyRevision"))
        mark = [{"type": _REVISION, "revision": new, "tag": self.tag}] if self.tag else []
        kept = _tagged(held, self.tag)
        if self.moves:
            wanted = [_latest(), *kept, *mark]
        elif self.tag:
            wanted = [
                *(
                    {k: v for k, v in each.items() if k != "tag"} if each.get("tag") == self.tag else each
                    for each in held
                ),
                *mark,
            ]
            wanted = [each for each in wanted if each.get("percent") or each.get("tag")]
        else:
            wanted = []
        if wanted:
            self.progress(f"{new} is ready; the requests move to it" if self.moves else f"{new} is ready")
            operation = self._write(service, wanted, serves=self.moves)
            committed(dict(service))  # it is ready, and nothing of ours holds the traffic any more
            return self._settled(operation)
        committed(dict(service))
        return dict(service)

    def _write(
        self, standing: Mapping[str, Any], traffic: list[dict[str, Any]], *, serves: bool = True
    ) -> dict[str, Any]:
        """Write the service; one whose requests stay where they are goes on telling of the Bento that has them."""
        notes = dict(self.body["annotations"])
        if not serves:
            notes |= {key: text for key, text in (standing.get("annotations") or {}).items() if key in (BENTO, DIGEST)}
        body = {**self.body, "annotations": notes, "traffic": traffic}
        with self._told("deploy"):
            return self.client.update(self.name, body, str(standing.get("etag", "")), self._attempt)

    def _ready(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until the newest revision is ready.

        Raises:
            RemoteError: it does not become so, with the reason.
            ConflictError: somebody else has written the service in between.
        """
        service = self._settled(operation)
        if (service.get("annotations") or {}).get(ATTEMPT) != self._attempt:
            raise ConflictError(
                f"another deployment of {self.name} came in between, and nothing of this one serves",
                hint=f"bentotool deployment show {self.name}; then try again",
            )
        if service.get("latestReadyRevision") != service.get("latestCreatedRevision"):
            raise self._failure(service, "")
        return service

    def _settled(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        end = time.monotonic() + self.limit_s
        pause, identity = _FIRST_PAUSE_S, str(operation.get("name") or "")
        with self._told("deploy"):
            while True:
                now: Mapping[str, Any] = (
                    self.client.operation(identity) if identity and not operation.get("done") else operation
                )
                service = self.client.service(self.name)
                if service is None:
                    raise ConflictError(f"{self.name} was deleted in the meantime", hint="deploy it again")
                if error := now.get("error"):
                    raise self._failure(service, str(error.get("message", "")), int(error.get("code") or 0))
                if now.get("done") or (not identity and not service.get("reconciling")):
                    if (service.get("terminalCondition") or {}).get("state") == "CONDITION_FAILED":
                        raise self._failure(service, "")
                    return service
                if time.monotonic() > end:
                    raise RemoteError(
                        f"{self.name} is not ready after {self.limit_s:g} s: {_state(service)}",
                        hint="--timeout gives it longer",
                    )
                self.progress(f"{short(service.get('latestCreatedRevision')) or self.name}: {_state(service)}")
                self.client.pause(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)

    def _failure(self, service: Mapping[str, Any], message: str, code: int = 0) -> BentotoolError:
        """Why the newest revision does not serve: by what it says of itself, and its log."""
        if code == 7:  # PERMISSION_DENIED: the operation itself was refused
            return refusal(Refusal(403, "PERMISSION_DENIED", message), f"deploy {self.name}", self.client.place)
        new = short(service.get("latestCreatedRevision"))
        revision: dict[str, Any] = {}
        said = ""
        with contextlib.suppress(Refusal, BentotoolError):
            revision = self.client.revision(self.name, new) if new else {}
        condition = failed_condition(revision, service)
        if "reason" not in condition:  # it has started, and said something perhaps
            with contextlib.suppress(Refusal, BentotoolError):
                said = last_line(self.client, self.name, new)
        return not_ready(self.name, self.image, self.client.place, condition, message, one_line(said))

    def _take_back(self, error: BaseException) -> None:
        """Remove the service of a first deployment that came to nothing, if it is still ours alone."""
        with contextlib.suppress(Refusal, BentotoolError):
            service = self.client.service(self.name)
            if service is None:
                return
            if (service.get("annotations") or {}).get(ATTEMPT) == self._attempt:
                self.client.delete(self.name, str(service.get("etag", "")))
                self.progress(f"removed: service {self.name}")
                return
        if not isinstance(error, ConflictError):
            self.note(f"the service {self.name} is left: bentotool deployment delete {self.name} takes it away")

    @contextlib.contextmanager
    def _told(self, doing: str) -> Any:
        try:
            yield
        except Refusal as error:
            raise refusal(error, f"{doing} {self.name}", self.client.place) from None


def _latest(tag: str = "") -> dict[str, Any]:
    return {"type": _LATEST, "percent": 100, **({"tag": tag} if tag else {})}


def _held(standing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The traffic as it goes now, each share bound to its revision; nothing where no revision has any."""
    ready = short(standing.get("latestReadyRevision"))
    found = []
    for each in standing.get("trafficStatuses") or standing.get("traffic") or ():
        revision = short(each.get("revision")) or ready
        share = {key: each[key] for key in ("percent", "tag") if each.get(key)}
        if revision and share:
            found.append({"type": _REVISION, "revision": revision, **share})
    return found if sum(each.get("percent", 0) for each in found) == 100 else []


def _tagged(held: list[dict[str, Any]], taken: str) -> list[dict[str, Any]]:
    """The revisions that have a URL of their own: they keep it, and no share."""
    return [
        {key: value for key, value in each.items() if key != "percent"}
        for each in held
        if each.get("tag") and each["tag"] != taken
    ]  # fmt: skip


def _state(service: Mapping[str, Any]) -> str:
    """What a service says that it waits for."""
    every = [service.get("terminalCondition") or {}, *(service.get("conditions") or ())]
    for each in every:
        if each.get("state") in ("CONDITION_RECONCILING", "CONDITION_PENDING", "CONDITION_FAILED") and each.get(
            "message"
        ):
            return one_line(str(each["message"]), 160)
    return "is being made ready"
