"""What the runs of batches have to do with the requests in them: ids in log lines, links between spans."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bentotool.runtime.batchqueue import Observer
from bentotool.sdk.requested import REQUEST

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.runtime.batchqueue import Entry
    from bentotool.runtime.tracing import Tracing
    from bentotool.sdk.signature import MethodSpec

__all__ = ["BatchWatch", "watch_batches"]

_NAMED = 8
"""Requests whose ids stand in the log lines of a batch; of a larger one it is said that there are more."""


class BatchWatch(Observer):
    """Tells figures to the metrics, and runs batches in the name of their requests.

    Args:
        name: of the API.
        figures: of the metrics, or what ignores them.
        tracing: makes spans, or None.
    """

    def __init__(self, name: str, figures: Observer, tracing: Tracing | None) -> None:
        self._name, self._tracing = name, tracing
        self.waited, self.executed, self.shed = figures.waited, figures.executed, figures.shed  # type: ignore[method-assign]

    def origin(self) -> tuple[Any, Any]:
        """The request and the span that an item belongs to."""
        return REQUEST.get(), self._tracing.origin() if self._tracing is not None else None

    @contextlib.contextmanager
    def running(self, batch: Sequence[Entry]) -> Iterator[None]:
        """Around a run, in a context that nothing else sees."""
        token = REQUEST.set(_joined([entry.origin[0] for entry in batch]))
        try:
            if self._tracing is None:
                yield
            else:
                units = sum(entry.units for entry in batch)
                with self._tracing.batch(self._name, [entry.origin[1] for entry in batch], units):
                    yield
        finally:
            REQUEST.reset(token)


def _joined(
    requests: Sequence[tuple[bytes, Mapping[bytes, bytes]] | None],
) -> tuple[bytes, Mapping[bytes, bytes]] | None:
    """What stands for all requests of a batch where one is asked for."""
    found = {request[0]: request for request in requests if request is not None}
    if len(found) <= 1:
        return next(iter(found.values()), None)
    more = (b"...",) if len(found) > _NAMED else ()
    return b",".join([*list(found)[:_NAMED], *more]), {}


def watch_batches(app: Application, spec: MethodSpec) -> Observer:
    """The observer of an API's batches."""
    figures = app.metrics.batch(spec.route) if app.metrics else Observer()
    return BatchWatch(spec.name, figures, app.tracing)
