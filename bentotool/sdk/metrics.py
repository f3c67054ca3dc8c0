"""``bentotool.metrics``: the names of `prometheus_client`, for a service's own metrics.

A metric may be made while the service is imported or later, in a method or at module level. On a server its numbers lie
in a file of the worker's own, and `generate_latest` sums the files of all workers; anywhere else they lie in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.sdk.exposition import exposition

if TYPE_CHECKING:
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        REGISTRY,
        CollectorRegistry,
        Counter,
        Enum,
        Gauge,
        Histogram,
        Info,
        Metric,
        Summary,
        disable_created_metrics,
        enable_created_metrics,
        start_http_server,
        start_wsgi_server,
    )
    from prometheus_client.parser import text_string_to_metric_families

__all__ = [
    "CONTENT_TYPE_LATEST",
    "REGISTRY",
    "CollectorRegistry",
    "Counter",
    "Enum",
    "Gauge",
    "Histogram",
    "Info",
    "Metric",
    "Summary",
    "disable_created_metrics",
    "enable_created_metrics",
    "generate_latest",
    "make_asgi_app",
    "make_wsgi_app",
    "start_http_server",
    "start_wsgi_server",
    "text_string_to_metric_families",
    "write_to_textfile",
]

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder of the workers' files; set by the server alone."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bentotool.metrics' has no attribute {name!r}")
    import prometheus_client
    import prometheus_client.parser

    home: Any = prometheus_client.parser if name == "text_string_to_metric_families" else prometheus_client
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Workers:
    """A collector that sums what all workers have written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.multiprocess import MultiProcessCollector

        # a file is empty for an instant after a worker has made it
        files = [str(path) for path in sorted(self._folder.glob("*.db")) if _size(path)]
        found: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # of a worker that has just ended


def whole_registry(*, also: CollectorRegistry | None = None) -> list[Any]:
    """The registries that together hold the metrics of the whole server.

    Args:
        also: another one of this process, which counts where no files are written.
    """
    import prometheus_client

    folder = os.environ.get(DIRECTORY)
    if not folder:
        return [prometheus_client.REGISTRY] if also is None else [also, prometheus_client.REGISTRY]
    registry = prometheus_client.CollectorRegistry()
    registry.register(_Workers(Path(folder)))
    return [registry]


def generate_latest(registry: CollectorRegistry | None = None) -> bytes:
    """The text exposition format: of the whole server, all its workers, or of the registry given."""
    import prometheus_client

    if registry is not None:
        return prometheus_client.generate_latest(registry)
    return whole_exposition()


def whole_exposition(*, also: CollectorRegistry | None = None) -> bytes:
    """The text exposition format of the whole server.

    Args:
        also: see `whole_registry`.
    """
    if folder := os.environ.get(DIRECTORY):
        return exposition(Path(folder))
    import prometheus_client

    return b"".join(map(prometheus_client.generate_latest, whole_registry(also=also)))


def make_wsgi_app(**options: Any) -> Any:
    """A WSGI application that answers with the metrics of the whole server."""
    import prometheus_client

    return prometheus_client.make_wsgi_app(whole_registry()[0], **options)


def make_asgi_app(**options: Any) -> Any:
    """The same as an ASGI application."""
    import prometheus_client

    return prometheus_client.make_asgi_app(whole_registry()[0], **options)


def write_to_textfile(path: str, registry: CollectorRegistry | None = None) -> None:
    """Write the metrics of the whole server, or of the registry given, for a node exporter's text file collector."""
    import prometheus_client

    prometheus_client.write_to_textfile(path, registry if registry is not None else whole_registry()[0])
