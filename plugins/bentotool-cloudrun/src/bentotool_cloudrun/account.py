"""Who asks: application-default credentials, by google-auth; and where: project and region."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentotool.errors import AuthenticationError, RemoteError, UsageError
from bentotool.interfaces import Credentials

__all__ = ["Place", "endpoint", "login", "place_of", "registry_login"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_S = 30
_LOOPBACK = ("http://127.0.0.1:", "http://localhost:", "http://[::1]:")
_NO_LOGIN = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS=FILE with a service account's key"


@dataclass(frozen=True)
class Place:
    """Where services are: a project and a region of it."""

    project: str
    region: str

    @property
    def path(self) -> str:
        """As the API names it."""
        return f"projects/{self.project}/locations/{self.region}"


def endpoint(service: str, variable: str) -> str:
    """Where an API of Google answers, with a ``/`` at the end.

    Args:
        service: its host's first name.
        variable: what overrides it, as for gcloud: a private endpoint, or one for tests.

    Raises:
        UsageError: the override would send a token in the clear over a network.
    """
    url = os.environ.get(variable, "") or f"https://{service}.googleapis.com/"
    if not url.startswith("https://") and not url.startswith(_LOOPBACK):
        raise UsageError(f"{variable} {url[:80]!r} is no https:// address", hint=f"unset {variable}")
    return url if url.endswith("/") else f"{url}/"


def login() -> tuple[Any, str]:
    """Application-default credentials, and the project that they name, or nothing.

    Raises:
        AuthenticationError: there are none, or what there is cannot be used.
    """
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on quotas, to a terminal that shows progress
            credentials, project = google.auth.default(scopes=[_SCOPE])
    except DefaultCredentialsError as error:
        file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if file:
            raise AuthenticationError(
                f"the credentials in {file} cannot be used: {_line(error)}", hint=_NO_LOGIN
            ) from None
        raise AuthenticationError("there are no application-default credentials here", hint=_NO_LOGIN) from None
    except (GoogleAuthError, OSError, ValueError, TypeError, AttributeError) as error:  # a file of another form
        raise AuthenticationError(f"the credentials cannot be used: {_line(error)}", hint=_NO_LOGIN) from None
    return credentials, str(project or "")


def place_of(values: Mapping[str, Any], recorded: Mapping[str, Any] | None = None, project: str = "") -> Place:
    """Where is meant.

    Args:
        values: options.
        recorded: facts of the deployment that was: what is left out stays where it is.
        project: that of the credentials.

    Raises:
        UsageError: it is not said.
    """
    recorded = recorded or {}
    named = values.get("project") or recorded.get("project") or os.environ.get("GOOGLE_CLOUD_PROJECT") or project
    region = values.get("region") or recorded.get("region")
    region = region or os.environ.get("CLOUDSDK_RUN_REGION") or os.environ.get("GOOGLE_CLOUD_REGION")
    if not named:
        raise UsageError(
            "no project is named, and the credentials have none", hint="--project ID, or GOOGLE_CLOUD_PROJECT"
        )
    if not region:
        raise UsageError("no region is named", hint="--region europe-west1, or CLOUDSDK_RUN_REGION")
    for what, text in (("project", str(named)), ("region", str(region))):
        if not text.replace("-", "").replace(":", "").replace(".", "").isalnum():
            raise UsageError(f"{what} {text[:60]!r} is no {what}'s name", hint=f"--{what} NAME")
    return Place(str(named), str(region))


def registry_login() -> Credentials | None:
    """A token for Artifact Registry, where credentials lie in a file; None where they do not, or cannot be used."""
    from google.auth import exceptions
    from google.auth.transport.requests import Request

    if not _has_file():  # the metadata server would be waited for on every machine that is none of Google's
        return None
    try:
        credentials, _ = login()
        credentials.refresh(_bounded(Request()))
    except (AuthenticationError, exceptions.GoogleAuthError):
        return None  # others, such as docker's configuration, may have some
    return Credentials("oauth2accesstoken", str(credentials.token)) if credentials.token else None


def _has_file() -> bool:
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return True
    folder = os.environ.get("CLOUDSDK_CONFIG")
    if folder is None:
        folder = f"{os.environ.get('APPDATA', '')}/gcloud" if os.name == "nt" else "~/.config/gcloud"
    return (Path(folder).expanduser() / "application_default_credentials.json").is_file()


def _bounded(request: Any) -> Any:
    """A way to ask for tokens that ends."""

    def ask(*args: Any, **kwargs: Any) -> Any:
        return request(*args, **{**kwargs, "timeout": _TOKEN_S})

    return ask


def refused(error: Exception) -> RemoteError:
    """What google-auth says when no token is given, in one line."""
    from google.auth.exceptions import RefreshError, TransportError

    if isinstance(error, TransportError) and not isinstance(error, RefreshError):
        return RemoteError(f"no token for Cloud Run: {_line(error)}", hint="see the network, and try again")
    return AuthenticationError(f"the credentials are refused: {_line(error)}", hint=_NO_LOGIN)


def _line(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())[:200] or type(error).__name__
