"""``metrics``, ``logging``, ``tracing`` and ``monitoring``: what a service lets others see of its work.

Keys and meanings are BentoML's; ``logging.level``, ``logging.access.sample`` and ``tracing.exporter_type: console`` are
ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from bentotool.errors import ConfigError

__all__ = [
    "AccessLogOptions",
    "MonitoringOptions",
    "TracingOptions",
    "override_access_log",
    "read_access_log",
    "read_buckets",
    "read_monitoring",
    "read_tracing",
]

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0)
_MOST_BUCKETS = 100
_SKIPPED = ("/metrics", "/healthz", "/livez", "/readyz")
_EXPORTERS = ("otlp", "console")
_PROTOCOLS = ("http", "http/protobuf", "grpc")
_MONITOR = re.compile(r"default|otlp|\w+([.:]\w+)+")
_COMPRESSIONS = ("gzip", "deflate", "none")


@dataclass(frozen=True)
class AccessLogOptions:
    """One line for each request.

    Attributes:
        enabled: whether there is a log.
        sample: share of the requests that are logged, 0 to 1. Failures (status 500 and above) always are.
        skip_paths: not logged, nor is what lies below them.
        trace_id: how trace ids are written, as Python formats an integer.
        span_id: the same for ids of spans.
    """

    enabled: bool = False
    sample: float = 1.0
    request_content_length: bool = True
    request_content_type: bool = True
    response_content_length: bool = True
    response_content_type: bool = True
    skip_paths: tuple[str, ...] = _SKIPPED
    trace_id: str = "032x"
    span_id: str = "016x"


@dataclass(frozen=True)
class TracingOptions:
    """Where spans go.

    Attributes:
        asked: the service says that it is to be traced; else the environment decides.
        exporter: ``otlp`` or ``console``; None for what ``OTEL_TRACES_EXPORTER`` says, else ``otlp``.
        sample_rate: share of the traces begun here that are recorded; None for what ``OTEL_TRACES_SAMPLER`` says.
        excluded: paths that are searched for one of these are not traced.
        timeout: seconds for one export; None for what the environment says.
        max_tag_value_length: characters of one attribute.
        otlp: ``protocol``, ``endpoint``, ``compression``, ``headers``, ``certificate_file``, ``insecure``.
    """

    asked: bool = False
    exporter: str | None = None
    sample_rate: float | None = None
    excluded: tuple[re.Pattern[str], ...] = ()
    timeout: float | None = None
    max_tag_value_length: int | None = None
    otlp: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MonitoringOptions:
    """What `monitor()` does where it is not told otherwise.

    Attributes:
        enabled: records are kept.
        kind: ``default`` (files), ``otlp``, a class of one's own, or ``module.Class``.
        options: for that class.
    """

    enabled: bool = True
    kind: Any = "default"
    options: Mapping[str, Any] = field(default_factory=dict)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_buckets(given: Mapping[str, Any], service: str) -> tuple[float, ...]:
    """Upper bounds of the request duration histogram, in seconds: ``buckets``, or ``min``, ``max`` and ``factor``.

    Raises:
        ConfigError: they do not rise, are too many, or both ways are mixed.
    """
    path: tuple[str, ...] = (f"service {service}", "metrics", "duration")
    given = {key: value for key, value in given.items() if value is not None}
    steps: dict[str, Any] = {key: value for key, value in given.items() if key != "buckets"}
    if "buckets" in given:
        bounds, path = given["buckets"], (*path, "buckets")
        if steps:
            raise ConfigError("either buckets, or min, max and factor", path=path[:-1])
        if not isinstance(bounds, (list, tuple)) or not bounds or not all(map(_is_number, bounds)):
            raise ConfigError(f"{bounds!r} is not a list of numbers", path=path)
        if any(low >= high for low, high in pairwise(bounds)):
            raise ConfigError("the bounds have to rise", path=path)
        found = tuple(float(bound) for bound in bounds)
    elif steps:
        found = _exponential(steps, path)
    else:
        return _BUCKETS
    if len(found) > _MOST_BUCKETS:
        raise ConfigError(f"{len(found)} buckets, at most {_MOST_BUCKETS} are kept", path=path)
    return found


def _exponential(steps: Mapping[str, Any], path: tuple[str, ...]) -> tuple[float, ...]:
    if len(steps) != 3 or not all(map(_is_number, steps.values())):
        raise ConfigError("min, max and factor are numbers that belong together", path=path)
    low, high, factor = float(steps["min"]), float(steps["max"]), float(steps["factor"])
    if not (0 < low < high and factor > 1):
        raise ConfigError("min is above 0 and below max, factor above 1", path=path)
    count = math.ceil(math.log(high / low) / math.log(factor))
    if count > _MOST_BUCKETS:
        raise ConfigError(f"about {count} buckets, at most {_MOST_BUCKETS} are kept", path=path)
    bounds = [low]
    while bounds[-1] * factor < high:
        bounds.append(bounds[-1] * factor)
    return (*bounds, high)


def read_access_log(given: Mapping[str, Any], service: str) -> AccessLogOptions:
    """The options of the access log, from the service's checked ``logging.access``.

    A table that is not empty turns the log on, unless it says ``enabled: false``.

    Raises:
        ConfigError: a format is none.
    """
    forms = given.get("format", {})
    for name, form in forms.items():
        try:
            format(1, form)
        except ValueError:
            path = (f"service {service}", "logging", "access", "format", name)
            raise ConfigError(f"{form!r} is not a format of an integer", path=path) from None
    shown = ("request_content_length", "request_content_type", "response_content_length", "response_content_type")
    return AccessLogOptions(
        enabled=bool(given.get("enabled", bool(given))),
        sample=float(given.get("sample", 1.0)),
        skip_paths=tuple(path.rstrip("/") or "/" for path in given.get("skip_paths", _SKIPPED)),
        trace_id=forms.get("trace_id", "032x"),
        span_id=forms.get("span_id", "016x"),
        **{name: bool(given.get(name, True)) for name in shown},
    )


def override_access_log(options: AccessLogOptions, variable: str | None) -> AccessLogOptions:
    """The options as ``BENTOTOOL_ACCESS_LOG`` has them, which stands above the service: 0, 1, or the share logged.

    Raises:
        ConfigError: it is no such number.
    """
    if not variable:
        return options
    try:
        share = float(variable)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(f"BENTOTOOL_ACCESS_LOG: {variable!r} is not a number from 0 to 1")
    return replace(options, enabled=share > 0, sample=share)


def read_tracing(given: Mapping[str, Any], service: str) -> TracingOptions:
    """The options of tracing, from a checked table.

    Raises:
        ConfigError: an exporter, protocol, pattern or header that is none.
    """
    path = (f"service {service}", "tracing")
    given = {key: value for key, value in given.items() if value is not None}
    exporter = given.get("exporter_type")
    if exporter in ("zipkin", "jaeger"):
        raise ConfigError(f"{exporter!r} is not written any more", path=path, hint=f"use otlp: {exporter} takes it")
    if exporter is not None and exporter not in _EXPORTERS:
        raise ConfigError(f"{exporter!r} is none of {', '.join(_EXPORTERS)}", path=(*path, "exporter_type"))
    rate = given.get("sample_rate")
    return TracingOptions(
        asked=bool(given.get("enabled", bool(given) and rate != 0)),
        exporter=exporter,
        sample_rate=None if rate is None else float(rate),
        excluded=_patterns(given.get("excluded_urls", ()), path),
        timeout=given.get("timeout"),
        max_tag_value_length=given.get("max_tag_value_length"),
        otlp=_otlp(given.get("otlp", {}), (*path, "otlp")),
    )


def _patterns(given: object, path: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    texts = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{given!r} is not a list of patterns", path=(*path, "excluded_urls"))
    try:
        return tuple(re.compile(text.strip()) for text in texts if text.strip())
    except re.error as error:
        raise ConfigError(f"not a pattern: {error}", path=(*path, "excluded_urls")) from None


def _otlp(given: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """BentoML's nested keys as one table."""
    found = {key: given[key] for key in ("protocol", "endpoint", "compression") if given.get(key) is not None}
    for name, allowed in (("protocol", _PROTOCOLS), ("compression", _COMPRESSIONS)):
        if name in found and found[name] not in allowed:
            raise ConfigError(f"{found[name]!r} is none of {', '.join(allowed)}", path=(*path, name))
    part = "grpc" if found.get("protocol") == "grpc" else "http"
    for key, value in given.get(part, {}).items():
        if value is not None:
            found[key] = _headers(value, (*path, part, key)) if key == "headers" else value
    return found


def _headers(given: object, path: tuple[str, ...]) -> dict[str, str]:
    try:
        pairs = dict(given.items() if isinstance(given, Mapping) else given)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ConfigError(f"{given!r} is not a table of headers", path=path) from None
    return {str(name): str(value) for name, value in pairs.items()}


def read_monitoring(given: Mapping[str, Any], service: str) -> MonitoringOptions:
    """The options of data logging, from a checked table.

    Raises:
        ConfigError: ``options`` is no table, or ``type`` cannot be the class of a monitor.
    """
    kind = given.get("type") or "default"
    if not isinstance(kind, type) and not (isinstance(kind, str) and _MONITOR.fullmatch(kind)):
        raise ConfigError(
            f"{kind!r} is not the class of a monitor",
            path=(f"service {service}", "monitoring", "type"),
            hint="default, otlp, module.Class or a class",
        )
    options = given.get("options") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{options!r} is not a table", path=(f"service {service}", "monitoring", "options"))
    return MonitoringOptions(bool(given.get("enabled", True)), kind, dict(options))
