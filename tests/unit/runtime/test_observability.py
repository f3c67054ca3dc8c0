"""Options of metrics, logs, traces and monitors, and what of them needs no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bentotool
from bentotool.errors import ConfigError, MissingDependencyError, UsageError
from bentotool.runtime.accesslog import AccessLog, Exchange
from bentotool.runtime.metricfiles import use_slot
from bentotool.sdk.config import parse_config
from bentotool.sdk.exposition import exposition
from bentotool.sdk.metrics import DIRECTORY
from bentotool.sdk.monitor import MonitorBase, close_all
from bentotool.sdk.observation import override_access_log, read_access_log


@pytest.mark.parametrize(
    ("duration", "bounds"),
    [
        ({"buckets": [1, 2.5]}, (1.0, 2.5)),
        ({"min": 0.1, "max": 1, "factor": 2}, (0.1, 0.2, 0.4, 0.8, 1.0)),
        ({"buckets": None, "min": 1, "max": 4, "factor": 2}, (1.0, 2.0, 4.0)),
    ],
)
def test_buckets(duration: Any, bounds: tuple[float, ...]) -> None:
    found = parse_config("S", {"metrics": {"duration": duration}}).duration_buckets
    assert found == pytest.approx(bounds)
    assert parse_config("S", {}).duration_buckets[-1] == 180


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics": {"duration": {"buckets": [2, 1]}}}, "the bounds have to rise"),
        ({"metrics": {"duration": {"buckets": "1"}}}, "not a list of numbers"),
        ({"metrics": {"duration": {"buckets": list(range(1, 200))}}}, "199 buckets"),
        ({"metrics": {"duration": {"buckets": [1], "min": 1}}}, "either buckets"),
        ({"metrics": {"duration": {"min": 1, "max": 2}}}, "belong together"),
        ({"metrics": {"duration": {"min": 1, "max": 2, "factor": 1}}}, "factor above 1"),
        ({"metrics": {"duration": {"min": 1e-9, "max": 1e9, "factor": 1.001}}}, "at most 100"),
        ({"metrics": {"namespace": "no-name"}}, "letters, digits"),
        ({"logging": {"access": {"sample": 2}}}, "a number from 0 to 1"),
        ({"logging": {"access": {"enable": True}}}, "unknown option 'enable'"),
        ({"logging": {"access": {"format": {"trace_id": "nonsense"}}}}, "not a format"),
        ({"logging": {"level": "loud"}}, "is not one of debug"),
        ({"tracing": {"exporter_type": "jaeger"}}, "not written any more"),
        ({"tracing": {"exporter_type": "paper"}}, "none of otlp, console"),
        ({"tracing": {"sample_rate": 3}}, "a number from 0 to 1"),
        ({"tracing": {"excluded_urls": ["("]}}, "not a pattern"),
        ({"tracing": {"otlp": {"protocol": "carrier pigeon"}}}, "none of http"),
        ({"tracing": {"otlp": {"http": {"headers": "x"}}}}, "not a table of headers"),
        ({"monitoring": {"options": []}}, None),
        ({"monitoring": {"options": ["a"]}}, "not a table"),
    ],
)
def test_wrong_options(options: Any, said: str | None) -> None:
    if said is None:
        assert parse_config("S", options).monitoring.options == {}
        return
    with pytest.raises(ConfigError) as caught:
        parse_config("S", options)
    assert said in str(caught.value)


def test_options_of_tracing_in_bentomls_form() -> None:
    given = {
        "exporter_type": "otlp",
        "sample_rate": 0.25,
        "excluded_urls": "readyz,internal/.*",
        "zipkin": None,
        "otlp": {"protocol": "http", "endpoint": "http://c:4318", "http": {"headers": [("a", "b")]}},
    }
    found = parse_config("S", {"tracing": given}).tracing
    assert found.asked
    assert (found.exporter, found.sample_rate) == ("otlp", 0.25)
    assert found.otlp == {"protocol": "http", "endpoint": "http://c:4318", "headers": {"a": "b"}}
    assert [pattern.pattern for pattern in found.excluded] == ["readyz", "internal/.*"]
    assert not parse_config("S", {"tracing": {"sample_rate": 0}}).tracing.asked
    assert not parse_config("S", {}).tracing.asked


def test_tracing_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from bentotool.runtime import tracing

    monkeypatch.setattr(tracing.importlib.util, "find_spec", lambda _name: None)
    asked = bentotool.service(type("S", (), {}), tracing={"exporter_type": "console"})
    with pytest.raises(MissingDependencyError) as caught:
        tracing.make_tracing(asked)
    assert "bentotool[tracing]" in (caught.value.hint or "")
    silent = bentotool.service(type("S", (), {}))
    assert tracing.make_tracing(silent) is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    with caplog.at_level("WARNING"):
        assert tracing.make_tracing(silent) is None
    assert "not installed" in caplog.text


def test_the_variable_of_the_access_log() -> None:
    options = read_access_log({}, "S")
    assert not options.enabled
    assert override_access_log(options, "0.5").sample == 0.5
    assert not override_access_log(read_access_log({"enabled": True}, "S"), "0").enabled
    with pytest.raises(ConfigError, match="BENTOTOOL_ACCESS_LOG"):
        override_access_log(options, "often")


def test_paths_that_are_not_logged_are_whole() -> None:
    log = AccessLog(read_access_log({"enabled": True}, "S"), str)
    assert [log.skips(path) for path in ("/livez", "/livez/deep", "/livezone", "/")] == [True, True, False, False]


def test_a_line_of_the_access_log_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"type": "http", "method": "GET", "path": "/a\nINFO bentotool.access: all is well", "headers": []}
    with caplog.at_level("INFO", "bentotool.access"):
        AccessLog(read_access_log({"enabled": True}, "S"), lambda _scope: "").write(Exchange(scope), 0.1)
    assert "\n" not in caplog.messages[0]
    assert "'/a\\nINFO" in caplog.messages[0]


def test_names_of_metrics_are_prometheus_clients() -> None:
    import prometheus_client

    for name in ("Counter", "Gauge", "Histogram", "Summary"):
        assert getattr(bentotool.metrics, name) is getattr(prometheus_client, name)
    with pytest.raises(AttributeError):
        _ = bentotool.metrics.Thermometer  # type: ignore[attr-defined]


def _run(folder: Path, slot: str, code: str) -> None:
    """A worker's life in a process of its own."""
    source = (
        f"from bentotool.runtime.metricfiles import use_slot\nuse_slot({slot!r})\nfrom bentotool.metrics import *\n"
    )
    environment = {**os.environ, DIRECTORY: str(folder)}
    subprocess.run([sys.executable, "-c", source + code], env=environment, check=True, timeout=60)


def test_files_of_a_slot_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gauges = "\n".join(
        f"{mode} = Gauge('g_{mode}', 'x', multiprocess_mode={mode!r})"
        for mode in ("all", "liveall", "livesum", "sum", "max", "min", "mostrecent")
    )
    sets = "\n".join(f"{mode}.set(%s)" for mode in ("all", "liveall", "livesum", "sum", "max", "min", "mostrecent"))
    histogram = "h = Histogram('h', 'x', ['who'], buckets=(1, 2)); h.labels('é' * 5000).observe(1.5)\n"
    many = "c = Counter('c', 'x', ['n'])\nfor n in range(2000): c.labels(str(n)).inc()\n"
    _run(tmp_path, "0", gauges + "\n" + sets.replace("%s", "7") + "\n" + histogram + many)
    _run(tmp_path, "0", gauges + "\n" + sets.replace("%s", "5") + "\n" + histogram + many)
    _run(tmp_path, "1", gauges + "\n" + sets.replace("%s", "1") + "\n" + histogram)
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    (tmp_path / "counter_9.db").write_bytes(b"")  # of a worker that has just made it
    text = bentotool.metrics.generate_latest().decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert (found['g_all{pid="0"}'], found['g_all{pid="1"}'], found["g_livesum"]) == ("5.0", "1.0", "6.0")
    assert (found["g_sum"], found["g_max"], found["g_min"]) == ("13.0", "7.0", "1.0")
    assert found[f'h_bucket{{le="2.0",who="{"é" * 5000}"}}'] == "3.0"
    assert [found[f'c_total{{n="{n}"}}'] for n in (0, 1999)] == ["2.0", "2.0"]
    assert 'pid="0x"' not in text


def test_the_text_is_what_prometheus_client_would_write(tmp_path: Path) -> None:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.parser import text_string_to_metric_families

    code = """
import math
for mode in ("all", "liveall", "livesum", "livemax", "sum", "max", "min", "mostrecent", "livemostrecent"):
    Gauge("g_" + mode, "of " + mode, ["a"], multiprocess_mode=mode).labels("x").set(%s)
Counter("c", "line 1\\nline \\\\ 2", ["odd"]).labels('a"b\\n\\\\é,{}').inc(2.5)
h = Histogram("h", "x", ["b", "a"], buckets=(0.005, 1, 1e6))
for n in range(7): h.labels("1", "2").observe(10.0 ** (n - 3))
Histogram("empty", "x")
s = Summary("s", "x"); s.observe(math.inf)
Gauge("n", "x", multiprocess_mode="livesum").set(-math.inf)
"""
    for slot in ("0", "1", "2"):
        _run(tmp_path, slot, code.replace("%s", slot))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))  # type: ignore[no-untyped-call]

    def samples(text: bytes) -> Any:
        families = list(text_string_to_metric_families(text.decode()))
        found = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}
        return found, sorted((family.name, family.type, family.documentation) for family in families)

    theirs, ours = samples(generate_latest(registry)), samples(exposition(tmp_path))
    assert len(ours[0]) > 30
    assert ours == theirs


def test_a_new_slot_needs_nothing(tmp_path: Path) -> None:
    code = "import gc, os\nSummary('s', 'x').observe(1)\nassert b's_count 1.0' in generate_latest()\n"
    _run(tmp_path, "3", code)
    assert [path.name for path in tmp_path.iterdir()] == ["summary_3.db"]
    assert use_slot.__module__ == "bentotool.runtime.metricfiles"


@pytest.fixture
def monitors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The records of a monitor, after all of them were written."""
    monkeypatch.chdir(tmp_path)

    def records(name: str) -> list[dict[str, Any]]:
        close_all(10)
        files = sorted((tmp_path / "monitoring" / name / "data").iterdir())
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]

    yield records
    close_all(10)


def test_monitors_nest_and_keep_apart(monitors: Any) -> None:
    with bentotool.monitor("outer") as outer:
        outer.log(1, name="a", role="feature", data_type="numerical")
        with bentotool.monitor("inner") as inner:
            inner.log("x", name="b", role="feature", data_type="categorical")
        outer.log(2, name="timestamp", role="feature", data_type="numerical")
    with pytest.raises(ZeroDivisionError), bentotool.monitor("outer") as outer:
        outer.log(1 / 0, name="a", role="feature", data_type="numerical")
    with bentotool.monitor("outer"):
        pass
    (record,) = monitors("outer")
    assert (record["a"], record["timestamp_"]) == (1, 2), "a name of the record's own is kept apart"
    assert [row["b"] for row in monitors("inner")] == ["x"]


def test_values_are_those_of_their_moment(monitors: Any, require_package: Any) -> None:
    require_package("numpy")
    import numpy as np

    values = np.array([1.5, np.nan])

    class Odd:
        def __str__(self) -> str:
            return "odd"

    with bentotool.monitor("m") as mon:
        mon.log(values, name="array", role="feature", data_type="numerical_sequence")
        mon.log(np.float32(0.5), name="scalar", role="feature", data_type="numerical")
        mon.log(Odd(), name="odd", role="feature", data_type="other")
    values[:] = 9
    (record,) = monitors("m")
    assert (record["array"], record["scalar"], record["odd"]) == ([1.5, None], 0.5, "odd")


def test_wrong_use_is_said(monitors: Any) -> None:
    def log_unequal() -> None:
        with bentotool.monitor("m") as mon:
            mon.log_batch([1, 2], name="a", role="feature", data_type="numerical")
            mon.log(1, name="b", role="feature", data_type="numerical")

    with pytest.raises(UsageError, match="unequal length: 'a' 2, 'b' 1"):
        log_unequal()
    with pytest.raises(UsageError, match="a single value"), bentotool.monitor("m") as mon:
        mon.log_batch(1, name="a", role="feature", data_type="numerical")  # type: ignore[arg-type]
    for name, kind, options in (
        ("../up", None, None),
        ("n1", "no.such.Class", None),
        ("n2", "default", {"log_config_file": "x.yaml"}),
        ("n3", "default", {"colour": "red"}),
        ("n4", "otlp", {"endpoint": "ftp://x"}),
        ("n5", 7, None),
    ):
        with pytest.raises(UsageError), bentotool.monitor(name, kind, options):  # type: ignore[arg-type]
            pass


def test_files_are_put_aside(monitors: Any, tmp_path: Path) -> None:
    for number in range(40):
        with bentotool.monitor("m", "default", {"max_bytes": 400, "backups": 3}) as mon:
            mon.log(number, name="n", role="feature", data_type="numerical")
        if number % 4 == 3:
            close_all(10)
    kept = [row["n"] for row in monitors("m")]
    assert kept[-1] == 39 or 39 in kept
    files = list((tmp_path / "monitoring" / "m" / "data").iterdir())
    assert 2 <= len(files) <= 4
    assert all(path.stat().st_size <= 600 for path in files)


def test_a_monitor_of_ones_own(monitors: Any) -> None:
    class Listed(MonitorBase):
        def __init__(self, name: str, mark: str) -> None:
            super().__init__(name)
            self.mark, self.schemas, self.rows = mark, [], []  # type: ignore[var-annotated]

        def export_schema(self, columns_schema: dict[str, dict[str, str]]) -> None:
            self.schemas.append(sorted(columns_schema))

        def export_data(self, datas: Any) -> None:
            self.rows.append(dict(datas))

    for names in (("a",), ("a",), ("a", "b")):
        with bentotool.monitor("own", Listed, {"mark": "!"}) as mon:
            for name in names:
                mon.log(1, name=name, role="feature", data_type="numerical")
    assert (mon.mark, mon.schemas) == ("!", [["a"], ["a", "b"]])
    assert mon.rows[-1] == {"a": [1], "b": [1]}


def test_ids_of_the_request_are_in_records(monitors: Any) -> None:
    from bentotool.sdk.requested import REQUEST

    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    token = REQUEST.set((b"r1", {b"traceparent": parent}))
    try:
        with bentotool.monitor("m") as mon:
            mon.log(1, name="a", role="feature", data_type="numerical")
    finally:
        REQUEST.reset(token)
    (record,) = monitors("m")
    assert (record["request_id"], record["trace_id"]) == ("r1", "0af7651916cd43dd8448eb211c80319c")
    assert msgspec.json.encode(record)
