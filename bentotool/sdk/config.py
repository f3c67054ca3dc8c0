"""The options of ``@service``: known keys, checked values, defaults.

Keys and meanings are those of BentoML 1.4's service configuration; ``http.max_body_bytes``, ``http.allowed_hosts``,
``http.api_keys``, ``traffic.max_queue``, ``traffic.max_queue_bytes``, ``traffic.max_stall``, ``endpoints.healthz`` are
ours, and what `observation` names.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import ConfigError
from bentotool.sdk.cors import CorsOptions, read_cors
from bentotool.sdk.observation import (
    AccessLogOptions,
    MonitoringOptions,
    TracingOptions,
    read_access_log,
    read_buckets,
    read_monitoring,
    read_tracing,
)
from bentotool.sdk.transport_options import ApiKeys, check_tls_table, read_api_keys

__all__ = ["ServiceConfig", "parse_config"]

_MIB = 1024 * 1024
_LEVELS = ("debug", "info", "warning", "error")
_NAME_PART = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True)
class ServiceConfig:
    """Everything the runtime needs to know about one service.

    Attributes:
        workers: worker processes.
        threads: how many synchronous calls run at once in a worker. BentoML's default 1 is kept, because services
            written for it may count on never being entered twice.
        timeout: seconds a request may take, its wait in queues included.
        max_concurrency: requests in flight over all workers, above which the answer is 429; None for no limit.
        max_queue: requests that may wait per worker and API, above which the answer is 503.
        max_body_bytes: size of a request body, above which the answer is 413.
        max_queue_bytes: bytes of request bodies that may be held per worker, above which the answer is 503.
        max_stall: seconds without a sign of life after which a worker is replaced; None for what its timeouts tell.
        allowed_hosts: Host names answered; empty for the default (loopback names on a loopback bind, else any).
        cors: which pages of other origins may call; None for none.
        api_keys: where the keys are that callers must show; None where anybody may call.
        endpoints: further paths of the probes, by probe.
        metrics_namespace: prefix of metric names.
        duration_buckets: upper bounds of the request duration histogram, in seconds.
        log_level: from which on loggers of libraries are heard; None for warnings.
        access_log: one line for each request, or none.
        tracing: where spans go.
        monitoring: what `monitor()` does.
        options: everything as it was given, for the build and for deployment targets.
    """

    workers: int = 1
    threads: int = 1
    timeout: float = 60.0
    max_concurrency: int | None = None
    max_queue: int = 1000
    max_body_bytes: int = 64 * _MIB
    max_queue_bytes: int = 256 * _MIB
    max_stall: float | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors: CorsOptions | None = None
    api_keys: ApiKeys | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    metrics_enabled: bool = True
    metrics_namespace: str = "bentotool_service"
    duration_buckets: tuple[float, ...] = field(default_factory=lambda: read_buckets({}, ""))
    log_level: str | None = None
    access_log: AccessLogOptions = AccessLogOptions()
    tracing: TracingOptions = TracingOptions()
    monitoring: MonitoringOptions = MonitoringOptions()
    options: Mapping[str, Any] = field(default_factory=dict)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_port(value: object) -> bool:
    return _is_count(value) and value < 65536  # type: ignore[operator]


def _is_duration(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_workers(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(entry, Mapping) and _is_gpus(entry) for entry in value)
    return value == "cpu_count" or _is_count(value)


def _is_gpus(worker: Mapping[str, Any]) -> bool:
    """Whether an entry of a list of workers says what it needs: a number of GPUs, a share of one, or their places."""
    gpus = worker.get("gpus", 0)
    if isinstance(gpus, (list, tuple)):
        places = all(isinstance(place, int) and not isinstance(place, bool) and place >= 0 for place in gpus)
        return set(worker) <= {"gpus"} and places
    return set(worker) <= {"gpus"} and (gpus == 0 or _is_duration(gpus)) and not isinstance(gpus, bool)


def _is_names(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _is_anything(value: object) -> bool:
    return True


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and value.isprintable() and "{" not in value


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_name_part(value: object) -> bool:
    return isinstance(value, str) and _NAME_PART.fullmatch(value) is not None


def _is_level(value: object) -> bool:
    return isinstance(value, str) and value.lower() in _LEVELS


_Check = tuple[Callable[[object], bool], str]
_COUNT: _Check = (_is_count, "a whole number above 0")
_PORT: _Check = (_is_port, "a port from 1 to 65535")
_SECONDS: _Check = (_is_duration, "a number of seconds above 0")
_FLAG: _Check = (_is_flag, "true or false")
_TEXT: _Check = (_is_text, "a text")
_PATH: _Check = (_is_path, 'a path that starts with "/"')
_ANY: _Check = (_is_anything, "")
_SHARE: _Check = (_is_share, "a number from 0 to 1")
_NAMES: _Check = (_is_names, "a list of paths")

_Schema = Mapping[str, "_Check | Mapping[str, Any]"]
_SCHEMA: _Schema = {
    "workers": (_is_workers, 'a whole number above 0, "cpu_count", or a list as [{"gpus": 1}]'),
    "threads": _COUNT,
    "backlog": _COUNT,
    "max_runner_connections": _COUNT,
    "runner_connection": _ANY,
    "replicate_process": _FLAG,
    "extra_ports": _ANY,
    "resources": {"cpu": _ANY, "memory": _ANY, "gpu": _ANY, "gpu_type": _TEXT, "tpu_type": _TEXT},
    "traffic": {
        "timeout": _SECONDS,
        "max_concurrency": _COUNT,
        "concurrency": _COUNT,
        "external_queue": _FLAG,
        "max_queue": _COUNT,
        "max_queue_bytes": _COUNT,
        "max_stall": _SECONDS,
    },
    "metrics": {
        "enabled": _FLAG,
        "namespace": (_is_name_part, "letters, digits and _, as names of metrics are made of"),
        "duration": dict.fromkeys(("buckets", "min", "max", "factor"), _ANY),
    },
    "logging": {
        "level": (_is_level, f"one of {', '.join(_LEVELS)}"),
        "access": {
            "enabled": _FLAG,
            "sample": _SHARE,
            "request_content_length": _FLAG,
            "request_content_type": _FLAG,
            "response_content_length": _FLAG,
            "response_content_type": _FLAG,
            "skip_paths": _NAMES,
            "format": {"trace_id": _TEXT, "span_id": _TEXT},
        },
    },
    "ssl": _ANY,
    "http": {
        "host": _TEXT,
        "port": _PORT,
        "proxy_port": _PORT,
        "cors": _ANY,
        "response": {"trace_id": _FLAG},
        "max_body_bytes": _COUNT,
        "api_keys": _ANY,
        "allowed_hosts": (_is_names, "a list of host names"),
    },
    "grpc": _ANY,
    "runner_probe": _ANY,
    "monitoring": {"enabled": _FLAG, "type": _ANY, "options": _ANY},
    "tasks": {"path": _TEXT, "lease": _SECONDS},
    "tracing": {
        "enabled": _FLAG,
        "exporter_type": _ANY,
        "sample_rate": (lambda value: value is None or _is_share(value), _SHARE[1]),
        "excluded_urls": _ANY,
        "timeout": (lambda value: value is None or _is_duration(value), _SECONDS[1]),
        "max_tag_value_length": (lambda value: value is None or _is_count(value), _COUNT[1]),
        "zipkin": _ANY,
        "jaeger": _ANY,
        "otlp": {
            **dict.fromkeys(("protocol", "endpoint", "compression"), _ANY),
            "http": {"headers": _ANY, "certificate_file": _ANY},
            "grpc": {"headers": _ANY, "insecure": _ANY},
        },
    },
    "endpoints": {"livez": _PATH, "readyz": _PATH, "healthz": _PATH},
}


def _count_workers(given: Any) -> int:
    if isinstance(given, (list, tuple)):
        return len(given)
    return (os.cpu_count() or 1) if given == "cpu_count" else int(given)


def suggest(name: str, known: list[str]) -> str | None:
    """The hint for a misspelt name, or the list of what there is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known options: {', '.join(sorted(known))}"


def _check(options: Mapping[str, Any], schema: _Schema, path: tuple[str, ...], extra: tuple[str, ...]) -> None:
    for key, value in options.items():
        rule = schema.get(key)
        if rule is None:
            raise ConfigError(f"unknown option {key!r}", path=path, hint=suggest(key, [*schema, *extra]))
        if isinstance(rule, Mapping):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{value!r} is not a table", path=(*path, key))
            _check(value, rule, (*path, key), ())
        elif not rule[0](value):
            raise ConfigError(f"{value!r} is not {rule[1]}", path=(*path, key))


def parse_config(name: str, options: Mapping[str, Any], *, declared: tuple[str, ...] = ()) -> ServiceConfig:
    """Check the options of ``@service`` and fill in defaults.

    Args:
        name: the service's name, for messages.
        options: as given to the decorator.
        declared: names of the decorator's own parameters, offered as suggestions too.

    Raises:
        ConfigError: an unknown option (with a suggestion) or a wrong value.
    """
    _check(options, _SCHEMA, (f"service {name}",), declared)
    traffic, http, metrics = options.get("traffic", {}), options.get("http", {}), options.get("metrics", {})
    check_tls_table(options.get("ssl"), name)  # wrong values are said where they are written
    logs = options.get("logging", {})
    workers = options.get("workers", 1)
    return ServiceConfig(
        workers=_count_workers(workers),
        threads=options.get("threads", 1),
        timeout=float(traffic.get("timeout", 60.0)),
        max_concurrency=traffic.get("max_concurrency"),
        max_queue=traffic.get("max_queue", 1000),
        max_body_bytes=http.get("max_body_bytes", 64 * _MIB),
        max_queue_bytes=traffic.get("max_queue_bytes", 256 * _MIB),
        max_stall=traffic.get("max_stall"),
        allowed_hosts=tuple(http.get("allowed_hosts", ())),
        cors=read_cors(http.get("cors"), name),
        api_keys=read_api_keys(http.get("api_keys"), name),
        endpoints=dict(options.get("endpoints", {})),
        metrics_enabled=metrics.get("enabled", True),
        metrics_namespace=metrics.get("namespace", "bentotool_service"),
        duration_buckets=read_buckets(metrics.get("duration", {}), name),
        log_level=logs.get("level"),
        access_log=read_access_log(logs.get("access", {}), name),
        tracing=read_tracing(options.get("tracing", {}), name),
        monitoring=read_monitoring(options.get("monitoring", {}), name),
        options=dict(options),
    )
