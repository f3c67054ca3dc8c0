"""What an API server refuses, and why, in one line with what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bentotool.errors import AuthenticationError, RemoteError
from bentotool_k8s.cluster.connection import Connection

__all__ = ["ApiError", "refusal", "short"]

_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<space>[^"]*)"| at the cluster scope)?'
)
_QUOTA = re.compile(r"exceeded quota: (?P<name>\S+), (?P<rest>.*)")
_UNDECLARED = re.compile(r"\.([^\s,:]+): field not declared in schema")
_LIMIT = 300


class ApiError(RemoteError):
    """The server refused.

    Args:
        status: of HTTP.
        reason: its word for it, such as ``Conflict``.
        causes: what is wrong, field by field.
    """

    def __init__(
        self, message: str, *, status: int, reason: str = "", causes: tuple[Mapping[str, Any], ...] = (),
        hint: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, hint=hint, details={"status": status, "reason": reason})
        self.status = status
        self.reason = reason
        self.causes = causes

    @property
    def fields_of_others(self) -> tuple[tuple[str, str], ...]:
        """Fields that somebody else set, and who."""
        found = []
        for each in self.causes:
            if each.get("reason") == "FieldManagerConflict":
                who = re.search(r'conflict with "([^"]*)"', str(each.get("message", "")))
                found.append((str(each.get("field", "")), who[1] if who else "another"))
        return tuple(found)


def refusal(status: int, said: Mapping[str, Any], connection: Connection, what: str) -> RemoteError:
    """The error that an answer stands for.

    Args:
        status: of HTTP.
        said: the ``Status`` object; empty where there was none.
        what: what was asked for, for people.
    """
    message, reason = str(said.get("message") or ""), str(said.get("reason") or "")
    details = said.get("details") if isinstance(said.get("details"), Mapping) else {}
    causes = tuple(each for each in (details or {}).get("causes") or () if isinstance(each, Mapping))
    if status == 401:
        return AuthenticationError(
            f"the cluster at {connection.server} does not take the credentials of context {connection.context}",
            hint="they are wrong or have run out: sign in again, as kubectl get pods would need it too",
        )
    text, hint = _worded(status, message, reason, details or {}, connection, what)
    return ApiError(text, status=status, reason=reason, causes=causes, hint=hint)


def _worded(
    status: int, message: str, reason: str, details: Mapping[str, Any], connection: Connection, what: str
) -> tuple[str, str | None]:
    space = connection.namespace
    if status == 404 and details.get("kind") == "namespaces":
        return f"the cluster has no namespace {space}", f"kubectl create namespace {space}, or --namespace NAME"
    if status == 403:
        return _forbidden(message, space, what)
    if "preStop" in message and ("sleep" in message or "handler type" in message):
        return f"{what}: the cluster does not know preStop.sleep", "Kubernetes 1.30 and later do; else --pre-stop 0"
    if "strict decoding error" in message or "field not declared in schema" in message:
        unknown = re.findall(r'unknown field "([^"]*)"', message) or _UNDECLARED.findall(message)
        return (
            f"{what}: the cluster does not know {short(', '.join(unknown)) or short(message)}",
            "it is of an older release than that needs: leave out the option that sets it",
        )
    if status == 422 and "immutable" in message:
        return (
            f"{what} cannot be changed into this: {_after_invalid(message)}",
            "delete the deployment and make it anew, or choose another --name",
        )
    if status in (400, 422):
        return f"{what} is refused: {_after_invalid(message) or status}", None
    if status == 409 and "being deleted" in message:
        return f"{what} is just being deleted", "give the same command again in a moment"
    if status in (429, 503, 504) or status >= 500:
        return (
            f"the cluster at {connection.server} cannot answer just now ({status}): {short(message) or what}",
            "give the same command again in a moment",
        )
    if not message:
        return (
            f"{connection.server} answers {status}, but not as a Kubernetes API does",
            "check the server of the context: kubectl cluster-info",
        )
    return f"{what}: {short(message)}", None


def _forbidden(message: str, space: str, what: str) -> tuple[str, str | None]:
    if found := _RBAC.search(message):
        resource = found["resource"] + (f".{found['group']}" if found["group"] else "")
        where = f" in namespace {found['space']}" if found["space"] else ""
        ask = f"kubectl auth can-i {found['verb']} {resource}" + (f" -n {found['space']}" if found["space"] else "")
        return (
            f"{found['user']} may not {found['verb']} {resource}{where}",
            f"ask for a Role that allows it: {ask}; or another --context or --namespace",
        )
    if found := _QUOTA.search(message):
        return (
            f"{what}: quota {found['name']} of namespace {space} is used up: {short(found['rest'])}",
            "ask for less, delete what is not needed, or have the quota raised",
        )
    if "being terminated" in message:
        return f"namespace {space} is just being deleted", "wait for its end, or --namespace NAME"
    return f"{what} is refused: {short(message) or 'forbidden'}", None


def _after_invalid(message: str) -> str:
    """Without the words that name the object again."""
    return short(re.sub(r'^[\w.]+ "[^"]*" is invalid: ', "", message))


def short(text: str) -> str:
    """One line of at most 300 characters."""
    text = " ".join(text.split())
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"
