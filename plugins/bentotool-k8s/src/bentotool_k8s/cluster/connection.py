"""The way to a cluster: which one, as whom, and what is said where it cannot be had.

Of the two maintained clients, ``kubernetes`` (the project's own) signs in wherever ``kubectl`` does: several files in
``KUBECONFIG``, programs for credentials of any version, also with client certificates, proxies, names of TLS servers.
``lightkube`` is imported sooner (0.10 s, not 0.17 s) and smaller, but has no such programs of version ``v1``, takes one
file. What the models of either are for, we do with plain objects: those know fields of any release and any custom kind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import (
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
    TimeoutError,
)

from bentotool.errors import RemoteError, UsageError

__all__ = ["IN_CLUSTER", "Connection", "connect"]

IN_CLUSTER = "in-cluster"
"""Stands for a context where the pod's own account is used."""

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CONNECT_S = 5.0
_READ_S = 30.0
_HEARING = threading.Lock()
_NO_RETRIES = urllib3.Retry(connect=1, read=0, redirect=0, status=0, other=0)


@dataclass
class Connection:
    """An API server, with the credentials of a context.

    Args:
        namespace: that is meant.
        kubeconfig: the files, where any; to find the context again.
    """

    server: str
    context: str
    namespace: str
    kubeconfig: str
    _configuration: Any
    _pool: urllib3.PoolManager

    def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None,
        kind: str = "application/json", stream: bool = False, read_s: float = _READ_S,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """One request. The answer may be of any status.

        Args:
            path: from ``/api`` on.
            kind: media type of the body.
            stream: the answer is read in pieces, by whoever asks.
            read_s: seconds in which the server says something.

        Raises:
            RemoteError: there is no answer.
        """
        url = f"{self.server}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "User-Agent": "bentotool", **self._credentials()}
        if stream:
            headers["Accept"] = "*/*"
        if body is not None:
            headers["Content-Type"] = kind
        for last in (False, True):
            try:
                return self._pool.request(
                    method, url, body=body, headers=headers, preload_content=not stream, retries=_NO_RETRIES,
                    timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                )  # fmt: skip
            except (HTTPError, OSError) as error:
                # a connection that was kept is closed by a proxy at any time; all that is asked here may be asked again
                if last or not isinstance(_reason(error), ProtocolError):
                    raise self.broken(error) from None
        raise AssertionError("unreachable")

    def _credentials(self) -> dict[str, str]:
        """Asked for each time: a token may have run out, and is then fetched anew."""
        with _heard():
            found = self._configuration.auth_settings()
        return {each["key"]: each["value"] for each in found.values() if each["in"] == "header" and each["value"]}

    def broken(self, error: Exception) -> RemoteError:
        """Why there is no answer, in one line."""
        reason = _reason(error)
        hint = "check the network, and the server of the context: kubectl cluster-info"
        if isinstance(reason, SSLError):
            said = str(reason).replace("\n", " ")
            return RemoteError(
                f"no secure connection to the cluster at {self.server}: {_short(said)}",
                hint="the context's certificate-authority or client-certificate is not the cluster's, or has run out",
            )
        if isinstance(reason, ProxyError):
            return RemoteError(
                f"no cluster answers at {self.server}: the proxy does not let through",
                hint="check HTTPS_PROXY and NO_PROXY, or proxy-url of the context",
            )
        if isinstance(reason, NewConnectionError):  # also a name that nobody knows
            last = str(reason).rpartition(": ")[2].strip("()")
            said = last.partition("] ")[2] or last
            return RemoteError(f"no cluster answers at {self.server}: {_short(said).lower()}", hint=hint)
        if isinstance(reason, TimeoutError):
            return RemoteError(f"no cluster answers at {self.server} in time", hint=hint)
        return RemoteError(f"the connection to the cluster at {self.server} broke: {_short(str(reason))}", hint=hint)

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()


def connect(kubeconfig: str | None = None, context: str | None = None, namespace: str | None = None) -> Connection:
    """The cluster that is meant; nothing is asked of it yet, but credentials may be fetched.

    Args:
        kubeconfig: a file; None: ``KUBECONFIG``, then ``~/.kube/config``, then the account of the pod this runs in.
        context: of it; None: its current one.
        namespace: None: that of the context, or ``default``.

    Raises:
        UsageError: there is no such file or context, or it says what cannot be used.
        RemoteError: the context's program gives no credentials.
    """
    asked = kubeconfig or os.environ.get("KUBECONFIG") or str(Path("~/.kube/config"))
    files = [Path(each).expanduser() for each in asked.split(os.pathsep) if each]
    if not any(each.is_file() for each in files):
        if kubeconfig is None and context in (None, IN_CLUSTER) and (_ACCOUNT / "token").is_file():
            return _in_cluster(namespace)
        raise UsageError(
            f"no cluster is known here: there is no file {' or '.join(map(str, files))}",
            hint="--kubeconfig FILE, or KUBECONFIG; the provider of the cluster has a command that writes one",
        )
    if context == IN_CLUSTER and (_ACCOUNT / "token").is_file():
        return _in_cluster(namespace)
    contexts, current = _contexts(files)
    chosen = context or current
    if chosen not in contexts:
        known = f"there is: {', '.join(sorted(contexts))}" if contexts else f"{asked} has none"
        said = f"there is no context {chosen!r} in {asked}" if chosen else f"{asked} names no current context"
        raise UsageError(said, hint=f"--context NAME; {known}")
    configuration = Configuration()
    try:
        with _heard():
            load_kube_config(
                config_file=os.pathsep.join(map(str, files)), context=chosen, client_configuration=configuration,
                persist_config=False,
            )  # fmt: skip
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UsageError(
            f"context {chosen} of {asked} cannot be used: {_short(str(error))}",
            hint=f"kubectl --context {chosen} get namespaces",
        ) from None
    meant = namespace or str(contexts[chosen].get("namespace") or "default")
    if not _NAMESPACE.fullmatch(meant):
        raise UsageError(
            f"{meant[:80]!r} is no name of a namespace{'' if namespace else f', and context {chosen} has it'}",
            hint="--namespace NAME: lower-case letters, digits and dashes",
        )
    return _connection(configuration, chosen, meant, asked)


def _connection(configuration: Any, context: str, namespace: str, kubeconfig: str) -> Connection:
    try:
        pool = RESTClientObject(configuration).pool_manager
    except (OSError, ValueError, HTTPError) as error:
        raise UsageError(
            f"context {context} cannot be used: {_short(str(error))}", hint="kubectl cluster-info"
        ) from None
    return Connection(str(configuration.host).rstrip("/"), context, namespace, kubeconfig, configuration, pool)


def _in_cluster(namespace: str | None) -> Connection:
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
        own = (_ACCOUNT / "namespace").read_text().strip()
    except (ConfigException, OSError) as error:
        raise UsageError(
            f"the account of this pod cannot be used: {_short(str(error))}", hint="--kubeconfig FILE"
        ) from None
    return _connection(configuration, IN_CLUSTER, namespace or own or "default", "")


def _contexts(files: list[Path]) -> tuple[dict[str, Mapping[str, Any]], str]:
    """The contexts by name, the first file that has one counting, and the current one, the last counting."""
    found: dict[str, Mapping[str, Any]] = {}
    current = ""
    for path in files:
        if not path.is_file():
            continue
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            for each in document.get("contexts") or ():
                found.setdefault(str(each["name"]), each.get("context") or {})
            current = str(document.get("current-context") or current)
        except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
            said = _short(str(error)) if isinstance(error, OSError) else "it is no kubeconfig"
            raise UsageError(f"{path} cannot be read: {said}", hint="kubectl config view") from None
    return found, current


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """The client logs why a program gives no credentials, and goes on without any: that is an error here.

    Raises:
        UsageError: the program cannot be started.
        RemoteError: it gave none.
    """
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    root, listener = logging.getLogger(), Listener(logging.ERROR)
    with _HEARING:
        before = root.handlers[:]
        root.handlers = [listener]
        try:
            yield
        finally:
            root.handlers = before
    if said and "[Errno " in said[0] + said[0].replace("[WinError ", "[Errno "):
        raise UsageError(
            f"the context's program for credentials cannot be started: {_short(said[0].partition('] ')[2] or said[0])}",
            hint="install it, or mend users.user.exec.command of the kubeconfig",
        )
    if said:
        raise RemoteError(
            f"the context's program gave no credentials: {_short(said[0].removeprefix('exec: '))}",
            hint="run it by hand (users.user.exec of the kubeconfig), and sign in again",
        )


def _reason(error: Exception) -> Exception:
    return error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error


def _short(text: str) -> str:
    """One line of at most 300 characters."""
    return " ".join(text.split())[:300]
