"""An API whose requests share calls: each waits in the batcher's queue and gets its own rows of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bentotool.runtime.batcher import Batcher
from bentotool.runtime.batchqueue import Observer
from bentotool.runtime.deadlines import Receive, disconnect_probe
from bentotool.sdk.codecs import Batching, codec_for
from bentotool.sdk.exceptions import InvalidArgument, InvalidOutput, PayloadTooLarge
from bentotool.sdk.signature import MethodSpec

__all__ = ["BatchedCall"]


def _batching_of(value: Any, dimension: int) -> Batching:
    """How a result without a declared array or list type is taken apart."""
    made = codec_for(list if isinstance(value, (list, tuple)) else type(value)).batching
    if made is None:
        raise InvalidOutput(f"a batchable API returns an array or a list, not a {type(value).__qualname__}")
    return made(dimension)


class BatchedCall:
    """Calls one batchable API through a batcher of its own, which it starts.

    Args:
        spec: the API.
        bound: its method.
        max_items: requests that may wait.
        observer: is told what the batcher does.
    """

    def __init__(self, spec: MethodSpec, bound: Callable[..., Any], max_items: int, observer: Observer) -> None:
        self.spec, self._bound = spec, bound
        function = self._batch_async if spec.kind == "async" else self._batch_sync
        self._batcher = Batcher(
            function, name=spec.name, max_units=spec.options.max_batch_size, max_items=max_items, observer=observer
        )
        self._batcher.start()
        make = spec.parameters[0].codec.batching
        assert make is not None
        self._input_batching = make(spec.options.batch_dim[0])

    def close(self) -> None:
        self._batcher.close()

    def admit(self, deadline: float, started: float) -> float:
        """Refuse a request before its body is read; the deadline of one that is taken.

        Raises:
            ServiceUnavailable: no answer would be in time.
        """
        deadline = min(deadline, started + self.spec.options.max_latency_ms / 1000)
        self._batcher.admit(deadline)
        return deadline

    async def __call__(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Any:
        value = args[0] if args else next(iter(named.values()))
        gone = disconnect_probe(receive)
        batching = self._input_batching
        try:
            rows = batching.count(value)
        except ValueError as error:
            raise InvalidArgument(f"$.{self.spec.parameters[0].name}: {error}") from None
        key, size = batching.key(value), self.spec.options.max_batch_size
        if rows <= size:
            return await self._batcher.submit(value, units=max(1, rows), key=key, deadline=deadline, gone=gone)
        # a request with more rows than a batch may have takes several batches, and gets one answer
        counts = [min(size, rows - start) for start in range(0, rows, size)]
        if len(counts) > self._batcher.queue.max_items:
            most = size * self._batcher.queue.max_items
            raise PayloadTooLarge(f"the body has {rows} rows, at most {most} are taken")
        pieces = batching.split(value, counts)
        submitted = [
            self._batcher.submit(piece, units=count, key=key, deadline=deadline, gone=gone)
            for piece, count in zip(pieces, counts, strict=True)
        ]
        results = await asyncio.gather(*submitted)
        return self._output_batching(results[0]).merge(results)

    def _output_batching(self, value: Any) -> Batching:
        make, dimension = self.spec.output.batching, self.spec.options.batch_dim[1]
        return make(dimension) if make is not None else _batching_of(value, dimension)

    def _split(self, merged: Any, counts: Sequence[int]) -> list[Any]:
        batching = self._output_batching(merged)
        rows = batching.count(merged)
        if rows != sum(counts):
            raise InvalidOutput(f"{self.spec.name} returned {rows} rows for {sum(counts)}")
        return batching.split(merged, counts)

    def _arguments(self, merged: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        parameter = self.spec.parameters[0]
        return ((), {parameter.name: merged}) if parameter.keyword_only else ((merged,), {})

    def _batch_sync(self, values: Sequence[Any]) -> list[Any]:
        batching = self._input_batching
        args, named = self._arguments(batching.merge(values))
        return self._split(self._bound(*args, **named), [batching.count(value) for value in values])

    async def _batch_async(self, values: Sequence[Any]) -> list[Any]:
        batching = self._input_batching
        args, named = self._arguments(batching.merge(values))
        return self._split(await self._bound(*args, **named), [batching.count(value) for value in values])
