"""OpenTelemetry spans of requests, calls between services, and the batches that requests share.

Off unless the service has a ``tracing`` table or the environment names an exporter (``OTEL_TRACES_EXPORTER``,
``OTEL_EXPORTER_OTLP_ENDPOINT`` and the like; ``OTEL_SDK_DISABLED`` turns it off). Then nothing of OpenTelemetry is
imported. Attribute names are those of https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bentotool.errors import MissingDependencyError, ServiceLoadError
from bentotool.sdk.current import bento_value, served_version, server_context
from bentotool.sdk.observation import TracingOptions

if TYPE_CHECKING:
    from bentotool.runtime.accesslog import Exchange
    from bentotool.sdk.service import Service

__all__ = ["TRACING_PACKAGES", "Tracing", "make_tracing"]

TRACING_PACKAGES = ("opentelemetry-sdk>=1.27", "opentelemetry-exporter-otlp-proto-http>=1.27")
"""What a Bento gets whose service asks for tracing."""
_log = logging.getLogger("bentotool.tracing")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_OWN = ("/livez", "/readyz", "/healthz", "/metrics")
_FAILED = 500
_FLUSH_S = 3.0


def make_tracing(service: Service[Any]) -> Tracing | None:
    """The tracing of a service; None where nobody asks for it.

    Raises:
        MissingDependencyError: the service asks for it, and OpenTelemetry is not installed.
        ServiceLoadError: an exporter is named that is not there.
    """
    options, variables = service.config.tracing, os.environ
    exporter = options.exporter or variables.get(_EXPORTER, "").strip().lower()
    wanted = exporter or any(variables.get(name) for name in _ENDPOINTS)
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if not (options.asked or wanted) or options.sample_rate == 0:
        return None
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        if options.asked:
            raise MissingDependencyError("opentelemetry-sdk", install="'bentotool[tracing]'", purpose="tracing")
        _log.warning("the environment asks for traces, and OpenTelemetry is not installed: none are made")
        return None
    return Tracing(service, options, exporter or "otlp")


class Tracing:
    """Makes spans.

    Args:
        service: names them.
        options: of ``tracing``.
        exporter: ``otlp`` or ``console``.
    """

    def __init__(self, service: Service[Any], options: TracingOptions, exporter: str) -> None:
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.trace import TracerProvider

        self._trace, self._propagate = trace, propagate
        self._prefix, self._excluded = service.path_prefix, options.excluded
        self._skipped = frozenset((*_OWN, *service.config.endpoints.values()))
        self._own: Any = None
        provider: Any = trace.get_tracer_provider()
        if not isinstance(provider, TracerProvider):  # else the service has set one up, and it is the service's
            provider = self._own = _make_provider(service, options, exporter)
            trace.set_tracer_provider(provider)
        self._tracer = provider.get_tracer("bentotool")

    def traces(self, path: str) -> bool:
        """Whether requests to a path, without the service's prefix, are traced."""
        return path not in self._skipped and not any(pattern.search(path) for pattern in self._excluded)

    @contextlib.contextmanager
    def request(self, exchange: Exchange, route: str) -> Iterator[tuple[int, int]]:
        """Around a request: gives the ids of its trace and its span.

        Args:
            route: as it was declared; empty where none answers the path.
        """
        scope, trace = exchange.scope, self._trace
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers.items()}
        method = scope.get("method", "GET")
        name = f"{method} {route}" if route else method
        client, server = scope.get("client"), scope.get("server")
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
            "http.route": self._prefix + route if route else None,
            "client.address": client[0] if client else None,
            "server.address": server[0] if server else None,
            "server.port": server[1] if server else None,
            "user_agent.original": headers.get("user-agent"),
            "bentotool.request_id": exchange.request_id.decode("latin-1"),
        }
        with self._tracer.start_as_current_span(
            name,
            context=self._propagate.extract(headers),
            kind=trace.SpanKind.SERVER,
            attributes={key: value for key, value in attributes.items() if value is not None},
        ) as span:
            context = span.get_span_context()
            try:
                yield context.trace_id, context.span_id
            finally:
                span.set_attribute("http.response.status_code", exchange.status)
                span.set_attribute("http.response.body.size", exchange.size)
                if exchange.status >= _FAILED:
                    span.set_attribute("error.type", str(exchange.status))
                    span.set_status(trace.StatusCode.ERROR)

    @contextlib.contextmanager
    def call(self, name: str, headers: Mapping[str, str]) -> Iterator[None]:
        """Around a call that another service of the same server has made, or the run of a task."""
        with self._tracer.start_as_current_span(
            name,
            context=self._propagate.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes={"rpc.system": "bentotool", "rpc.method": name},
        ):
            yield

    def origin(self) -> Any:
        """The span that a batched call belongs to, to be handed to `batch`; None where none is recorded."""
        span = self._trace.get_current_span()
        return span if span.is_recording() else None

    @contextlib.contextmanager
    def batch(self, name: str, origins: Sequence[Any], units: int) -> Iterator[None]:
        """Around the run of a batch: a span in the trace of the first request, linked to all of them, and they to it.

        Args:
            origins: what `origin` gave for each item.
            units: rows in the batch.
        """
        spans = list(dict.fromkeys(span for span in origins if span is not None))
        if not spans:
            yield
            return
        trace = self._trace
        with self._tracer.start_as_current_span(
            f"batch {name}",
            context=trace.set_span_in_context(spans[0]),
            links=[trace.Link(span.get_span_context()) for span in spans],
            attributes={"bentotool.batch.items": len(origins), "bentotool.batch.units": units},
        ) as span:
            for one in spans:
                if one.is_recording():  # else its caller has left meanwhile
                    one.add_link(span.get_span_context(), {"bentotool.batch": name})
            yield

    def close(self) -> None:
        """Send what is still to be sent, for a few seconds at most: a collector that is away holds nobody up."""
        if self._own is not None:
            ending = threading.Thread(target=self._own.shutdown, name="tracing", daemon=True)
            ending.start()
            ending.join(_FLUSH_S)


def _make_provider(service: Service[Any], options: TracingOptions, exporter: str) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    attributes: dict[str, Any] = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or service.name,
        "service.namespace": bento_value("name") or None,
        "service.version": served_version(service) or None,
        "service.instance.id": f"{socket.gethostname()}/{server_context.worker_index}",
    }
    named: dict[str, Any] = {}
    if options.sample_rate is not None:
        named["sampler"] = ParentBased(TraceIdRatioBased(options.sample_rate))
    if options.max_tag_value_length is not None:
        named["span_limits"] = SpanLimits(max_span_attribute_length=options.max_tag_value_length)
    said = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")  # what stands there stays
    known = {name: value for name, value in attributes.items() if value is not None and f"{name}=" not in said}
    provider = TracerProvider(resource=Resource.create(known), shutdown_on_exit=False, **named)
    if exporter == "console":
        provider.add_span_processor(SimpleSpanProcessor(_console_exporter()))
    else:
        provider.add_span_processor(BatchSpanProcessor(_otlp_exporter(options, exporter)))
    return provider


def _console_exporter() -> Any:
    """One line of JSON for each span, on standard error: standard output is the supervisor's."""
    import json
    import sys

    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: json.dumps(json.loads(span.to_json())) + "\n")


def _otlp_exporter(options: TracingOptions, exporter: str) -> Any:
    if exporter != "otlp":
        raise ServiceLoadError(f"{_EXPORTER} is {exporter!r}", hint="otlp, console and none are known here")
    given = dict(options.otlp)
    protocol = given.get("protocol") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
    protocol = protocol or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    module = f"opentelemetry.exporter.otlp.proto.{'grpc' if protocol == 'grpc' else 'http'}.trace_exporter"
    try:
        made: Callable[..., Any] = importlib.import_module(module).OTLPSpanExporter
    except ImportError:
        package = f"opentelemetry-exporter-otlp-proto-{'grpc' if protocol == 'grpc' else 'http'}"
        raise MissingDependencyError(package, install=package, purpose=f"traces by {protocol}") from None
    named: dict[str, Any] = {"endpoint": given.get("endpoint"), "headers": given.get("headers")}
    if protocol == "grpc":
        named["insecure"] = given.get("insecure")
    else:
        named["certificate_file"] = given.get("certificate_file")
    named["timeout"] = options.timeout
    if given.get("compression"):
        named["compression"] = _compression(protocol, given["compression"])
    return made(**{name: value for name, value in named.items() if value is not None})


def _compression(protocol: str, name: str) -> Any:
    if protocol == "grpc":
        grpc = importlib.import_module("grpc")
        return {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}.get(name)
    return importlib.import_module("opentelemetry.exporter.otlp.proto.http").Compression(name)
