"""Asking a service what it is, in a process of its own: user code never runs inside the tool."""

from __future__ import annotations

import json
import os
import subprocess  # the interpreter is started with an argument list
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.build.schema import check_text
from bentotool.errors import BuildError, ConfigError, NotFoundError, ServiceLoadError

__all__ = ["TIMEOUT_ENV", "Probe", "probe_service"]

TIMEOUT_ENV = "BENTOTOOL_PROBE_TIMEOUT"
_TIMEOUT = 60.0
_LIMIT = 16 << 20
_OUTPUT_LIMIT = 2000


@dataclass(frozen=True)
class Probe:
    """What a service says about itself.

    Args:
        service: import string, ``module:Class``.
        models: references of the models it names, as it writes them.
        schema, openapi: its API documents.
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


def probe_service(
    project: Path, service: str, *, store: Path, timeout: float | None = None, show_output: bool = False
) -> Probe:
    """Import the service in a subprocess and read what it declares.

    Args:
        service: ``module:Class``, ``module`` or ``file.py``.
        store: the store in which the service may look up models.
        timeout: seconds; default 60 or ``$BENTOTOOL_PROBE_TIMEOUT``.
        show_output: let what the service prints appear on stderr.

    Raises:
        NotFoundError: the service's file or class is not there.
        ServiceLoadError: it fails to import, or takes too long.
    """
    limit = _timeout() if timeout is None else timeout
    command = [
        sys.executable,
        "-m",
        "bentotool.runtime.probe",
        "--app-dir",
        str(project.absolute()),
        "--service",
        service,
    ]
    # Bytecode would appear in the user's folder; a random hash seed would let sets change the order of the schema.
    environment = {**os.environ, "BENTOTOOL_STORE": str(store), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory(prefix="bentotool-probe-") as folder:
        result, printed = Path(folder) / "probe.json", Path(folder) / "output.txt"
        with printed.open("wb") as sink:
            output: Any = sys.stderr if show_output and _has_descriptor(sys.stderr) else sink
            try:
                done = subprocess.run(
                    [*command, "--output", str(result)],
                    cwd=project,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=limit,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise ServiceLoadError(
                    f"service {service!r} did not finish importing within {limit:g} s",
                    hint=f"do slow work in __init__ or on_startup, or set {TIMEOUT_ENV}=SECONDS",
                ) from None
        document = _read(result)
        if document is None:
            raise _crash(service, done.returncode, printed)
    if "error" in document:
        raise _failure(document["error"], service, is_there=_is_there(project, service))
    return _probe(document)


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


def _crash(service: str, status: int, printed: Path) -> ServiceLoadError:
    tail = printed.read_bytes()[-_OUTPUT_LIMIT:].decode("utf-8", "replace").strip().splitlines()
    last = " ".join(tail[-1].split())[:300] if tail else "it printed nothing"
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return ServiceLoadError(
        f"the process that imports service {service!r} {how}: {last}", hint="bentotool build -v shows its output"
    )


def _is_there(project: Path, service: str) -> bool:
    module = service.partition(":")[0]
    path = project / (module if module.endswith(".py") else module.replace(".", "/"))
    return path.exists() or path.with_name(path.name + ".py").is_file()


def _failure(error: Any, service: str, *, is_there: bool) -> ServiceLoadError | NotFoundError | ConfigError:
    error = error if isinstance(error, dict) else {}
    message = " ".join(str(error.get("message") or f"service {service!r} failed to import").split())[:1000]
    hint = str(error["hint"]) if error.get("hint") else None
    kinds: dict[str, type[ServiceLoadError] | type[NotFoundError] | type[ConfigError]]
    kinds = {"not_found": NotFoundError, "config": ConfigError, "usage": ConfigError}
    kind = kinds.get(str(error.get("code")), ServiceLoadError)
    return (kind if is_there else NotFoundError)(message, hint=hint)


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
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BuildError(f"the service's description is not in the expected form: {error!r}"[:300]) from None
