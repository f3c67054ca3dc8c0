"""``hf://ORG/REPO[@REVISION]``: a repository of the Hugging Face hub, through the hub's own client and cache.

The client's own settings apply: ``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``, and ``HF_HUB_OFFLINE``, with which only the
cache is asked. Files are data here: nothing of a repository is imported or run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    MissingDependencyError,
    NotFoundError,
    RemoteError,
    UnsafeError,
    UsageError,
)
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest

_URI = re.compile(r"hf://([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", re.ASCII)

_HTTP_LIBRARIES = frozenset({"httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"})


def _parse(uri: str) -> tuple[str, str | None]:
    found = _URI.fullmatch(uri)
    if not found or ".." in uri:
        raise _no_name(uri)
    return found[1], found[2]


def _no_name(uri: str) -> UsageError:
    return UsageError(f"{uri} names no repository of the hub", hint="write hf://ORG/REPO or hf://ORG/REPO@REVISION")


class HubSource:
    """See :class:`bentotool.protocols.Source`."""

    def fetch(self, request: SourceRequest) -> SourceModel:
        """The files in the hub's cache, which nothing rewrites; what is missing there is downloaded first."""
        if request.checksum is not None:
            raise UsageError(
                "a repository has many files, so --checksum cannot be checked", hint="give @REVISION, a commit"
            )
        repository, revision = _parse(request.uri)
        snapshot = _snapshot(repository, revision, request.max_bytes)
        files = tuple(_files(snapshot))
        total = sum(file.path.stat().st_size for file in files)
        if total > request.max_bytes:
            raise _too_large(request.uri, request.max_bytes)
        request.advance(total)
        name = repository.replace("/", "--")  # as the hub's own cache spells it
        origin = f"hf://{repository}@{snapshot.name}"  # the cache names a snapshot by its commit
        asked = f"hf://{repository}@{revision or 'main'}"  # by which a service may name it: HuggingFaceModel
        return SourceModel(files, name, metadata={"source": origin, "source_request": asked}, shared=True)


def _too_large(uri: str, limit: int) -> UnsafeError:
    return UnsafeError(f"{uri} is larger than {limit} bytes", hint="raise the limit with --max-size if that is right")


def _snapshot(repository: str, revision: str | None, max_bytes: int) -> Path:
    try:
        from huggingface_hub import HfApi, constants, errors, snapshot_download
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "huggingface_hub", install="bentotool-huggingface[hub]", purpose="to fetch hf:// models"
        ) from error
    title = f"hf://{repository}" + (f"@{revision}" if revision else "")
    try:
        if not constants.HF_HUB_OFFLINE:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
            if sum(file.size or 0 for file in info.siblings or ()) > max_bytes:
                raise _too_large(title, max_bytes)
            revision = info.sha  # a branch that moves meanwhile does not mix two versions
        return Path(snapshot_download(repository, revision=revision))
    except errors.GatedRepoError:
        raise AuthenticationError(f"{title} is gated", hint="accept its terms on the hub and set HF_TOKEN") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise NotFoundError(f"{title} does not exist, or is private", hint="check the name, or set HF_TOKEN") from None
    except errors.LocalEntryNotFoundError as error:
        if not constants.HF_HUB_OFFLINE:
            raise _not_given(title, error) from error
        raise NotFoundError(f"{title} is not in the hub's cache", hint="unset HF_HUB_OFFLINE to download it") from None
    except Exception as error:
        # a ValueError is of a name, or of an answer that is no JSON
        if isinstance(error, errors.HfHubHTTPError | OSError | ValueError) or _is_transport(error):
            raise _not_given(title, error) from error
        raise


def _is_transport(error: Exception) -> bool:
    """Whether an error is one of the HTTP library below the hub's client, which differs between its releases."""
    return any(kind.__module__.partition(".")[0] in _HTTP_LIBRARIES for kind in type(error).__mro__)


def _not_given(title: str, error: Exception) -> BentotoolError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return _no_name(title)
    hub = urlsplit(constants.ENDPOINT)
    if hub.scheme not in ("http", "https") or not hub.hostname:
        return UsageError(f"HF_ENDPOINT is no web address, so {title} is not to be had", hint="write https://HOST")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        hint = "set HF_TOKEN to a token that may read it, and accept its terms on the hub"
        return AuthenticationError(f"{hub.hostname} refuses {title}: it answered {status}", hint=hint)
    hint = "try again, or set HF_HUB_OFFLINE=1 to use what is in the hub's cache"
    if status is not None:
        reason = f"it answered {status}"
    elif _is_transport(error) or isinstance(error, ConnectionError | TimeoutError):
        reason = "it cannot be reached, or does not answer"
    elif isinstance(error, ValueError):
        reason, hint = "its answer is not that of a hub", "check HF_ENDPOINT"
    else:
        reason = getattr(error, "strerror", None) or type(error).__name__
    return RemoteError(f"{hub.hostname} did not give {title}: {reason}", hint=hint)


def _files(snapshot: Path) -> Iterator[SourceFile]:
    """Files of a snapshot: links into the ``blobs`` of the same repository's cache, and nowhere else."""
    home = snapshot.resolve().parent.parent
    for folder, folders, names in os.walk(snapshot):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            real = path.resolve()
            if not real.is_relative_to(home) or not real.is_file():
                raise UnsafeError(f"{path} leads out of the hub's cache", hint="remove the repository from the cache")
            if name not in (".gitattributes", ".gitignore"):
                yield SourceFile(real, path.relative_to(snapshot).as_posix())
