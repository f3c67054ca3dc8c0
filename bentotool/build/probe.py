"""Asking a service what it is, in a process of its own: user code never runs inside the tool."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess  # the interpreter is started with an argument list
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bentotool.build.arguments import check_value, without_values
from bentotool.build.memory import Finding, Memory, service_environment
from bentotool.build.schema import check_text
from bentotool.errors import BuildError, ConfigError, NotFoundError, ServiceLoadError
from bentotool.runtime.isolation import NETWORK_ENV

__all__ = ["TIMEOUT_ENV", "Probe", "probe_service"]

TIMEOUT_ENV = "BENTOTOOL_PROBE_TIMEOUT"
_TIMEOUT = 60.0
_LIMIT = 16 << 20
_OUTPUT_LIMIT = 2000
_NO_NETWORK = re.compile(r"network is unreachable|name resolution|name or service not known|getaddrinfo", re.IGNORECASE)


@dataclass(frozen=True)
class Probe:
    """What a service says about itself.

    Args:
        service: import string, ``module:Class``.
        models: references of the models it names, as it writes them.
        schema, openapi: its API documents.
        arguments: ``{"name", "type", "required", "secret"}`` of each template argument, with ``value`` where one was
            given that is no secret.
        services: of its graph, the entry first: what :func:`bentotool.runtime.parts.service_facts` tells.
        modules: files of the project that its import brought in, relative to it.
        finding: how it was found out, where the build remembers such things.
    """

    service: str
    name: str
    description: str = ""
    models: tuple[str, ...] = ()
    schema: dict[str, Any] = field(default_factory=dict)
    openapi: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    envs: tuple[dict[str, str], ...] = ()
    image: dict[str, Any] | str | None = None
    requirements: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    arguments: tuple[dict[str, Any], ...] = ()
    services: tuple[dict[str, Any], ...] = ()
    finding: Finding | None = field(default=None, compare=False, repr=False)


def probe_service(
    project: Path,
    service: str,
    *,
    store: Path,
    timeout: float | None = None,
    show_output: bool = False,
    memory: Memory | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Probe:
    """Import the service in a subprocess and read what it declares.

    Args:
        service: ``module:Class``, ``module`` or ``file.py``.
        store: the store in which the service may look up models.
        timeout: seconds; default 60 or ``$BENTOTOOL_PROBE_TIMEOUT``.
        show_output: let what the service prints appear on stderr.
        memory: where an earlier import's answer may stand; it counts while all it depended on is the same.
        arguments: template arguments by name. The process gets them by its standard input.

    Raises:
        NotFoundError: the service's file or class is not there.
        ServiceLoadError: it fails to import, or takes too long.
    """
    limit = _timeout() if timeout is None else timeout
    environment = service_environment(store)
    finding = None
    if memory is not None:
        finding = memory.recall(project, service, store, environment, arguments)
        if finding.hit:
            return replace(_probe(finding.document), finding=finding)
    with tempfile.TemporaryDirectory(prefix="bentotool-probe-") as folder:
        started_ns = time.time_ns()
        document = _run(project, service, environment, Path(folder), limit, show_output, arguments or {})
        if "error" in document:
            raise _failure(document, service, is_there=_is_there(project, service))
        seen = document.pop("seen", None)
        probe = _probe(document)
        if memory is not None and finding is not None:
            finding = memory.learn(finding, document, seen, started_ns, folder)
    return replace(probe, finding=finding)


def _run(
    project: Path,
    service: str,
    environment: dict[str, str],
    folder: Path,
    limit: float,
    show_output: bool,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """What the probe's process wrote."""
    command = [
        sys.executable,
        "-m",
        "bentotool.runtime.probe",
        "--app-dir",
        str(project.absolute()),
        "--service",
        service,
    ]
    result, printed = folder / "probe.json", folder / "output.txt"
    with printed.open("wb") as sink:
        output: Any = sys.stderr if show_output and _has_descriptor(sys.stderr) else sink
        try:
            status = _ended(
                [*command, "--output", str(result)],
                json.dumps(dict(arguments)).encode(),
                limit,
                cwd=project,
                env=environment,
                stdout=output,
                stderr=output,
            )
        except subprocess.TimeoutExpired:
            raise ServiceLoadError(
                f"service {service!r} did not finish importing within {limit:g} s",
                hint=f"do slow work in __init__ or on_startup, or set {TIMEOUT_ENV}=SECONDS",
            ) from None
    document = _read(result)
    if document is None:
        raise _crash(service, status, printed, arguments)
    return document


def _ended(command: Sequence[str], given: bytes, limit: float, **how: Any) -> int:
    """Run a process to its end and give its status; what it started ends with it, where the system has groups.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``limit`` seconds, and was ended.
    """
    grouped = hasattr(os, "killpg")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=grouped, **how)
    try:
        process.communicate(given, timeout=limit)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if grouped:  # a group's number is free for nobody while one of its processes lives
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def _has_descriptor(stream: Any) -> bool:
    try:
        return bool(stream.fileno() >= 0)
    except (AttributeError, OSError, ValueError):
        return False


def _timeout() -> float:
    written = os.environ.get(TIMEOUT_ENV)
    try:
        value = float(written) if written else _TIMEOUT
    except ValueError:
        value = 0.0
    if not 0 < value < 86_400:
        raise ConfigError(f"{TIMEOUT_ENV} is {str(written)[:40]!r}, not a number of seconds")
    return value


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        document = json.loads(content) if len(content) <= _LIMIT else None
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _crash(service: str, status: int, printed: Path, arguments: Mapping[str, Any]) -> ServiceLoadError:
    output = printed.read_bytes()[-_OUTPUT_LIMIT:].decode("utf-8", "replace")
    tail = without_values(output, arguments).strip().splitlines()
    last = " ".join(tail[-1].split())[:300] if tail else "it printed nothing"
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return ServiceLoadError(
        f"the process that imports service {service!r} {how}: {last}", hint="bentotool build -v shows its output"
    )


def _is_there(project: Path, service: str) -> bool:
    module = service.partition(":")[0]
    name = module if module.endswith(".py") else module.replace(".", "/")
    paths = (project / name, project / "src" / name)
    return any(path.exists() or path.with_name(path.name + ".py").is_file() for path in paths)


def _failure(
    document: dict[str, Any], service: str, *, is_there: bool
) -> ServiceLoadError | NotFoundError | ConfigError:
    error = document["error"] if isinstance(document["error"], dict) else {}
    message = " ".join(str(error.get("message") or f"service {service!r} failed to import").split())[:1000]
    hint = str(error["hint"]) if error.get("hint") else None
    if document.get("isolated") and _NO_NETWORK.search(message):
        hint = f"a build imports services without network: download in __init__, or set {NETWORK_ENV}=1"
    kinds: dict[str, type[ServiceLoadError] | type[NotFoundError] | type[ConfigError]]
    kinds = {"not_found": NotFoundError, "config": ConfigError, "usage": ConfigError}
    kind = kinds.get(str(error.get("code")), ServiceLoadError)
    return (kind if is_there else NotFoundError)(message, hint=hint)


def _argument(item: Mapping[str, Any]) -> dict[str, Any]:
    """What the service says of an argument, checked by the rules of the configuration."""
    where = ("service", "arguments")
    value = {"value": check_value(item["value"], where)} if "value" in item and not item["secret"] else {}
    return {
        "name": check_text(str(item["name"]), where),
        "type": check_text(str(item["type"]), where),
        "required": bool(item["required"]),
        "secret": bool(item["secret"]),
        **value,
    }


def _probe(document: dict[str, Any]) -> Probe:
    try:
        where = ("service",)
        return Probe(
            service=check_text(str(document["service"]), where),
            name=check_text(str(document["name"]), where),
            description=check_text(str(document.get("description") or ""), (*where, "description"), multiline=True),
            models=tuple(check_text(str(model), (*where, "models")) for model in document.get("models") or ()),
            schema=dict(document.get("schema") or {}),
            openapi=dict(document.get("openapi") or {}),
            config=dict(document.get("config") or {}),
            labels={str(k): check_text(str(v), (*where, "labels")) for k, v in (document.get("labels") or {}).items()},
            envs=tuple(dict(item) for item in document.get("envs") or ()),
            image=document.get("image") or None,
            requirements=tuple(str(line) for line in document.get("requirements") or ()),
            depends=tuple(str(name) for name in document.get("depends") or ()),
            modules=tuple(str(name) for name in document.get("modules") or ()),
            arguments=tuple(_argument(item) for item in document.get("arguments") or ()),
            services=tuple(dict(item) for item in document.get("services") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(f"the service's description is not in the expected form: {error!r}"[:300]) from None
