"""What Cloud Run refuses or does not bring up, in one line with the next step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bentotool.errors import AuthenticationError, BentotoolError, ConflictError, NotFoundError, RemoteError, UsageError
from bentotool_cloudrun.account import Place
from bentotool_cloudrun.api import Refusal

__all__ = ["failed_condition", "not_ready", "one_line", "refusal"]

_PERMISSION = re.compile(r"[Pp]ermission '?([a-z][\w]*(?:\.\w+)+)'?")
_LOGS = re.compile(r"Logs? URL:\s*(\S+)")
_ROLES = (
    ("iam.serviceaccounts.actAs", "roles/iam.serviceAccountUser on the account that the service runs as"),
    ("run.services.setIamPolicy", "roles/run.admin: --allow-unauthenticated needs it"),
    ("run.", "roles/run.developer"),
    ("logging.", "roles/logging.viewer"),
    ("artifactregistry.", "roles/artifactregistry.reader"),
)  # fmt: skip
_IMAGE_REFUSED = {
    "CONTAINER_PERMISSION_DENIED", "CONTAINER_IMAGE_UNAUTHORIZED", "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED",
}  # fmt: skip
_NO_IMAGE = re.compile(r"image .{0,400}not found", re.IGNORECASE | re.DOTALL)
_PULL = re.compile(r"artifactregistry\.|must have permission to read the image", re.IGNORECASE)


def one_line(text: str, limit: int = 300) -> str:
    """A message without line breaks, addresses of consoles and what is said after them."""
    text = re.split(r"Logs for this revision|Logs URL:|For more troubleshooting|Visit https?:", text)[0]
    return " ".join(text.split())[:limit].rstrip(" .:")


def refusal(error: Refusal, doing: str, place: Place) -> BentotoolError:
    """An answer of the API as an error of ours.

    Args:
        doing: what was asked for, as in ``deploy iris``.
    """
    said = one_line(error.message)
    if error.http == 401:
        return AuthenticationError(
            f"cannot {doing}: Cloud Run does not know the credentials: {said}",
            hint="gcloud auth application-default login",
        )
    if "SERVICE_DISABLED" in error.reasons:
        hint = f"gcloud services enable run.googleapis.com --project {place.project}"
        return RemoteError(f"cannot {doing}: the Cloud Run API is not enabled in {place.project}", hint=hint)
    if error.http == 403:
        return _denied(said, error.message, doing, place)
    if error.http == 404:
        return NotFoundError(
            f"cannot {doing}: {said or 'not found'}",
            hint=f"--project and --region: these are {place.project} and {place.region}",
        )
    if error.http == 409:
        return ConflictError(
            f"cannot {doing}: another deployment of it is under way", hint="bentotool deployment show; then try again"
        )
    if error.http == 429 or "quota" in said.lower():
        return RemoteError(f"cannot {doing}: a quota of {place.project} is used up: {said}", hint=_quotas(place))
    if error.http == 400:
        return UsageError(
            f"cannot {doing}: Cloud Run does not take it: {said}",
            hint="bentotool deploy cloudrun --dry-run shows what is sent",
        )
    return RemoteError(f"cannot {doing}: Cloud Run answers {error.http}: {said}", hint="try again")


def _denied(said: str, message: str, doing: str, place: Place) -> BentotoolError:
    found = _PERMISSION.search(message)
    if found is None:
        return AuthenticationError(
            f"cannot {doing}: permission denied: {said}", hint="roles/run.developer may be missing"
        )
    role = next((role for start, role in _ROLES if found[1].startswith(start)), "a role with it")
    return AuthenticationError(
        f"cannot {doing}: the permission {found[1]} in {place.project} is missing", hint=f"have {role} granted"
    )


def failed_condition(*things: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The condition that says most about why a service or a revision is not ready; empty where none does."""
    found: list[Mapping[str, Any]] = []
    for thing in things:
        every = [*((thing or {}).get("conditions") or ()), (thing or {}).get("terminalCondition") or {}]
        found += [each for each in every if each.get("state") == "CONDITION_FAILED"]
    found.sort(key=lambda each: not (each.get("revisionReason") or each.get("reason") not in (None, "REVISION_FAILED")))
    return found[0] if found else {}


def not_ready(
    name: str, image: str, place: Place, condition: Mapping[str, Any], message: str, last_line: str
) -> BentotoolError:
    """Why a new revision does not serve.

    Args:
        condition: what the revision says of itself, where it does.
        message: of the operation.
        last_line: of the revision's own log.
    """
    text = str(condition.get("message") or message or "")
    reason = str(condition.get("reason") or "")
    logs = next((found[1] for each in (text, message) if (found := _LOGS.search(each or ""))), "")
    said = one_line(text) or reason or "no reason is given"
    if reason in _IMAGE_REFUSED or _PULL.search(text):
        hint = f"grant roles/artifactregistry.reader to the Cloud Run service agent of {place.project}"
        return RemoteError(f"{name}: Cloud Run may not pull {image}", hint=hint)
    if reason == "CONTAINER_MISSING" or _NO_IMAGE.search(text):
        return RemoteError(
            f"{name}: there is no image {image}", hint="--registry pushes the Bento's own; or see --image"
        )
    if reason == "SECRETS_ACCESS_CHECK_FAILED":
        hint = "grant roles/secretmanager.secretAccessor to the account that the service runs as"
        return RemoteError(f"{name}: a secret cannot be read: {said}", hint=hint)
    if "quota" in text.lower():
        return RemoteError(f"{name}: a quota of {place.project} is used up: {said}", hint=_quotas(place))
    own = last_line or said
    return RemoteError(
        f"{name} does not start: {own}", hint=f"logs: {logs}" if logs else f"logs of {name} in Cloud Logging"
    )


def _quotas(place: Place) -> str:
    return f"https://console.cloud.google.com/iam-admin/quotas?project={place.project}, or another --region"
