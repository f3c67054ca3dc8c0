"""Records as OpenTelemetry logs: OTLP over HTTP in its JSON form, which every collector takes, without a library.

Source of the form: https://opentelemetry.io/docs/specs/otlp/#otlphttp and the names of fields in
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/logs/v1/logs.proto.
"""

from __future__ import annotations

import gzip
import http.client
import os
import random
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from bentotool.errors import RemoteError, UsageError
from bentotool.sdk.current import server_context
from bentotool.sdk.monitor import MonitorBase
from bentotool.sdk.monitor_buffer import Buffer
from bentotool.sdk.monitor_files import COLUMNS, about, encode_records

__all__ = ["OtlpMonitor"]

_DEFAULT = "http://localhost:4318"
_PATH = "/v1/logs"
_SCHEMES = ("http", "https")
_AGAIN = (429, 502, 503, 504)
_FIRST_WAIT_S, _ATTEMPTS = 0.2, 5
_AT_ONCE = 500
_MIB = 1024 * 1024
_SEVERITY_INFO = 9


def _endpoint(given: str | None, insecure: bool) -> str:
    """Where records go: the option, else the variables that name a collector.

    Raises:
        UsageError: it is no address.
    """
    url = given or os.environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")
    if not url:
        url = (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULT).rstrip("/") + _PATH
    if "://" not in url:
        url = f"{'http' if insecure else 'https'}://{url}"
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise UsageError(f"{url!r} is not the address of a collector", hint="as http://localhost:4318")
    return url if parts.path.strip("/") else url.rstrip("/") + _PATH


def _headers(given: Mapping[str, str] | Sequence[tuple[str, str]] | None) -> dict[str, str]:
    if given:
        return dict(given)
    said = os.environ.get("OTEL_EXPORTER_OTLP_LOGS_HEADERS") or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS") or ""
    pairs = [pair.partition("=") for pair in said.split(",") if "=" in pair]
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}


def _text(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}


class OtlpMonitor(MonitorBase):
    """Sends records to a collector.

    Args:
        endpoint: its address; None for what ``OTEL_EXPORTER_OTLP_LOGS_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_ENDPOINT``
            says, else the usual port of this machine.
        headers: of each request; None for ``OTEL_EXPORTER_OTLP_HEADERS``.
        timeout: seconds for one request.
        compression: ``gzip`` or None.
        insecure: whether an address without a scheme is plain HTTP.
        meta_sample_rate: share of the records that carry their columns.
        buffer_records: that may wait to be sent; more are dropped and counted.
        buffer_bytes: the same in bytes.
        credentials: BentoML's, for gRPC; has to be None.
    """

    PRESERVED_COLUMNS = COLUMNS

    def __init__(
        self,
        name: str,
        endpoint: str | None = None,
        insecure: bool = False,
        credentials: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: str | None = None,
        meta_sample_rate: float = 1.0,
        buffer_records: int = 10_000,
        buffer_bytes: int = 16 * _MIB,
    ) -> None:
        super().__init__(name)
        if credentials is not None:
            raise UsageError("monitoring.options.credentials is not taken", hint="use headers, and an https endpoint")
        if compression not in (None, "gzip", "none"):
            raise UsageError(f"monitoring.options.compression {compression!r} is not taken", hint="gzip is")
        self._url = urlsplit(_endpoint(endpoint, insecure))
        self._headers, self._timeout = _headers(headers), timeout or 10.0
        self._zipped, self._rate = compression == "gzip", meta_sample_rate
        self._columns: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._buffer = Buffer(name, self._write, buffer_records, buffer_bytes)

    def export_schema(self, columns_schema: dict[str, dict[str, str]]) -> None:
        with self._lock:
            self._columns = columns_schema

    def export_data(self, datas: Mapping[str, Sequence[Any]]) -> None:
        self._buffer.put(encode_records(datas))

    def close(self, seconds: float) -> None:
        self._buffer.close(seconds)

    def _write(self, records: Sequence[bytes]) -> int:
        sent = 0
        for start in range(0, len(records), _AT_ONCE):
            part = records[start : start + _AT_ONCE]
            self._deliver(self._body(part))
            sent += len(part)
        return sent

    def _body(self, records: Sequence[bytes]) -> bytes:
        with self._lock:
            columns = about(self._columns, self.name)
        meta = columns["meta_data"]
        attributes = [_text("event.name", "bentotool.monitor"), _text("monitor.name", self.name)]
        told = [*attributes, _text("monitor.schema", msgspec.json.encode(columns["schema"]).decode())]
        resource = [
            _text("service.name", os.environ.get("OTEL_SERVICE_NAME") or server_context.service_name or "bentotool"),
            _text("service.namespace", meta["bento_name"]),
            _text("service.version", meta["bento_version"]),
            _text("service.instance.id", str(server_context.worker_index)),
        ]
        logs = [self._record(record, told if self._tells() else attributes) for record in records]
        scope = {"scope": {"name": "bentotool.monitor"}, "logRecords": logs}
        return msgspec.json.encode({"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [scope]}]})

    def _tells(self) -> bool:
        return self._rate >= 1 or random.random() < self._rate  # noqa: S311 - a sample, no secret

    def _record(self, record: bytes, attributes: list[dict[str, Any]]) -> dict[str, Any]:
        trace = msgspec.json.decode(record).get("trace_id")
        found: dict[str, Any] = {
            "timeUnixNano": str(time.time_ns()),
            "severityNumber": _SEVERITY_INFO,
            "body": {"stringValue": record.decode()},
            "attributes": attributes,
        }
        return {**found, "traceId": trace} if trace else found

    def _deliver(self, body: bytes) -> None:
        """Send, again where the collector is away or busy. Raises: RemoteError: it does not take the records."""
        headers = {"content-type": "application/json", **self._headers}
        if self._zipped:
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        said, wait = "", _FIRST_WAIT_S
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(wait if not self._buffer.closing else _FIRST_WAIT_S)
                wait *= 2
            try:
                status = self._post(body, headers)
            except (OSError, http.client.HTTPException) as error:
                said, self._connection = str(error) or type(error).__name__, None
                continue
            if status < http.client.MULTIPLE_CHOICES:
                return
            said = f"status {status}"
            if status not in _AGAIN:
                break
        raise RemoteError(f"the collector at {self._url.netloc} does not take them: {said}")

    def _post(self, body: bytes, headers: Mapping[str, str]) -> int:
        if self._connection is None:
            host, port = str(self._url.hostname), self._url.port
            if self._url.scheme == "https":
                context = ssl.create_default_context(cafile=os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE") or None)
                self._connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        path = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        self._connection.request("POST", path, body, dict(headers))
        response = self._connection.getresponse()
        response.read(_MIB)
        if response.will_close:
            self._connection.close()
            self._connection = None
        return response.status
