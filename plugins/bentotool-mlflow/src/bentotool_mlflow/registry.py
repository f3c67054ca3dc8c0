"""Where the files of a run or of a registered model lie, as a tracking server says, and what it says of the model.

What a server says is a stranger's word: it may not point at files of this machine, nor at another web server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    MissingDependencyError,
    NotFoundError,
    RemoteError,
    UnsafeError,
)
from bentotool.interfaces import JSON

_MAX_TEXT = 2000
_MAX_TAGS = 100
_MAX_REASON = 200
_ASKED = re.compile(r"API request to (\S+) failed with ")
_ANSWERED = re.compile(r"too many (\d{3}) error responses", re.ASCII)
_LOGGED = re.compile(r"m-[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True)
class Place:
    """Where a model lies.

    Attributes:
        uri: as messages call it.
        folder: on this machine; or None, and then ``repository`` is MLflow's client for where it lies.
    """

    uri: str
    name: str
    folder: Path | None = None
    repository: Any = None
    version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, JSON] = field(default_factory=dict)


def require_mlflow() -> None:
    """MissingDependencyError where there is no client."""
    try:
        import mlflow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise MissingDependencyError(
            "mlflow", install="mlflow-skinny", purpose="to ask a tracking server; mlflow:FOLDER needs nothing"
        ) from error


def find_run(run: str, path: str) -> Place:
    """A model that a run logged: one of its logged models, or a folder of its artifacts."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    found = client.get_run(run)
    path = path.strip("/")
    name, _, rest = path.partition("/")
    location = _join(str(found.info.artifact_uri), path)
    outputs = getattr(found, "outputs", None)
    for output in getattr(outputs, "model_outputs", None) or ():
        logged = client.get_logged_model(output.model_id)
        if logged.name == name:
            location = _join(str(logged.artifact_location), rest)
            break
    metadata: dict[str, JSON] = {"mlflow_run": run}
    return _place(f"runs:/{run}/{path}", location, path.rpartition("/")[2], metadata=metadata)


def find_model(name: str, alias: str, version: str) -> Place:
    """A version of a registered model: of that number or alias, or the latest; or a logged model by its id."""
    import mlflow
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    if _LOGGED.fullmatch(name) and not alias and not version:
        logged = client.get_logged_model(name)
        labels = _labels(logged.tags)
        return _place(f"models:/{name}", str(logged.artifact_location), str(logged.name), None, labels)
    if alias:
        found = client.get_model_version_by_alias(name, alias)
    elif version and version != "latest":
        found = client.get_model_version(name, version)
    else:
        found = _latest(client, name)
    number = str(found.version)
    uri = f"models:/{name}/{number}"
    if str(mlflow.get_registry_uri()).startswith("databricks"):  # which has clients of its own for where files lie
        location = uri
    else:
        location = str(client.get_model_version_download_uri(name, number))
    if _LOGGED.fullmatch(location.rpartition("/")[2]) and location.startswith("models:"):
        location = str(client.get_logged_model(location.rpartition("/")[2]).artifact_location)
    facts: dict[str, JSON] = {"name": name, "version": number}  # nothing that changes: aliases and notes do
    if isinstance(found.run_id, str) and found.run_id:
        facts["run_id"] = found.run_id[:_MAX_TEXT]
    return _place(uri, location, name, number, _labels(found.tags), {"mlflow_registry": facts})


def told(error: Exception, title: str) -> BentotoolError:
    """What a failure of MLflow's client means, in one line."""
    text = " ".join(str(error).split())[:300]
    status = getattr(error, "get_http_status_code", lambda: 0)()
    if status == 404:
        return NotFoundError(f"{title} does not exist: {text}", hint="check the name, and MLFLOW_TRACKING_URI")
    if status in (401, 403):
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return AuthenticationError(f"MLflow refuses {title}: {text}", hint=hint)
    hint = "check MLFLOW_TRACKING_URI, and that the server runs"
    return RemoteError(f"MLflow did not give {title}: {_reason(text) or type(error).__name__}", hint=hint)


def _reason(text: str) -> str:
    """What a message says first; those of the HTTP library below say it last, after what was tried how often."""
    asked = _ASKED.match(text)
    if asked is None:
        return text.partition(". ")[0][:_MAX_REASON]
    server = urlsplit(asked[1]).netloc.rpartition("@")[2]
    status = _ANSWERED.search(text)
    return f"{server} answers {status[1]}" if status else f"{server} cannot be reached, or does not answer"


def _latest(client: Any, name: str) -> Any:
    client.get_registered_model(name)  # says that there is none of that name, where a search finds nothing
    quoted = name.replace("'", "''")
    found = client.search_model_versions(f"name='{quoted}'", max_results=1, order_by=["version_number DESC"])
    if not found:
        raise NotFoundError(f"models:/{name} has no version", hint="register one, or check MLFLOW_TRACKING_URI")
    return found[0]


def _labels(tags: Mapping[str, str] | None) -> dict[str, str]:
    """The user's own tags; those of MLflow's and of its hosts are told apart by their names."""
    own = {str(key): str(value) for key, value in (tags or {}).items() if not str(key).startswith("mlflow.")}
    return {key[:_MAX_TEXT]: value[:_MAX_TEXT] for key, value in sorted(own.items())[:_MAX_TAGS]}


def _place(
    uri: str,
    location: str,
    name: str,
    version: str | None = None,
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, JSON] | None = None,
) -> Place:
    import mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    servers = [urlsplit(str(found)) for found in (mlflow.get_tracking_uri(), mlflow.get_registry_uri())]
    remote = [server for server in servers if server.scheme in ("http", "https")]
    folder = _local(location)
    if folder is not None and remote:
        raise UnsafeError(
            f"the server says that {uri} lies on this machine, at {folder}",
            hint=f"if that is right, import the folder itself: mlflow:{folder}",
        )
    target = urlsplit(location)
    if target.scheme in ("http", "https") and target.netloc not in {server.netloc for server in remote}:
        raise UnsafeError(
            f"the server says that {uri} lies on {target.netloc}", hint="download it and import its folder"
        )
    repository = None if folder is not None else get_artifact_repository(location)
    return Place(uri, name, folder, repository, version, labels or {}, metadata or {})


def _local(location: str) -> Path | None:
    target = urlsplit(location)
    if target.scheme == "file":
        return Path(url2pathname(target.path))
    return Path(location) if len(target.scheme) < 2 else None  # one letter is a drive of Windows


def _join(location: str, path: str) -> str:
    from mlflow.utils.uri import append_to_uri_path

    join: Any = append_to_uri_path  # which has no types
    return str(join(location, path)) if path else location
