"""An API whose requests share calls: each waits in the batcher's queue and gets its own rows of the answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from bentotool.errors import ConfigError
from bentotool.runtime.batcher import Answer, Batcher
from bentotool.runtime.batchqueue import BatchQueue, Entry, Observer
from bentotool.runtime.deadlines import Receive, disconnect_probe
from bentotool.sdk.codecs import Batching, codec_for
from bentotool.sdk.exceptions import InvalidArgument, InvalidOutput, PayloadTooLarge
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.wording import kind_of

__all__ = ["BatchedCall"]


def _batching_of(value: Any, dimension: int) -> Batching:
    """How a result without a declared array or list type is taken apart."""
    made = codec_for(list if isinstance(value, (list, tuple)) else type(value)).batching
    if made is None:
        raise InvalidOutput(f"a batchable API returns an array or a list, not {kind_of(value)}")
    return made(dimension)


class BatchedCall:
    """Calls one batchable API through a batcher of its own, which it starts.

    Args:
        spec: the API.
        bound: its method.
        max_items: requests that may wait.
        observer: is told what the batcher does.

    Raises:
        ConfigError: an option names a method that the service has not.
    """

    def __init__(self, spec: MethodSpec, bound: Callable[..., Any], max_items: int, observer: Observer) -> None:
        self.spec, self._bound = spec, bound
        options = spec.options
        make = spec.parameters[0].codec.batching
        assert make is not None
        self._input_batching = make(options.batch_dim[0])
        self._key, self._units, self._pad = (self._hook(name) for name in ("batch_key", "batch_units", "batch_pad"))
        self._size, self._max_items = options.max_batch_size, max_items
        self._batcher = Batcher(
            self._batch_async if spec.kind == "async" else self._batch_sync,
            name=spec.name,
            max_units=options.max_batch_size,
            max_items=max_items,
            observer=observer,
            policy=options.batch_policy or BatchQueue,
        )
        self._batcher.start()

    def _hook(self, name: str) -> Callable[[Any], Any] | None:
        """What an option gives, as a function."""
        given = getattr(self.spec.options, name)
        if not isinstance(given, str):
            return given  # type: ignore[no-any-return]
        found = getattr(getattr(self._bound, "__self__", None), given, None)
        if not callable(found):
            raise ConfigError(f"the service has no method {given!r}", path=(f"API {self.spec.name}", name))
        return found  # type: ignore[no-any-return]

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
        value, rows, units = self._measure(args, named)
        gone = disconnect_probe(receive)
        if units <= self._size:
            return await self._submit(value, units, deadline, gone)
        # a request with more rows than a batch may have takes several batches, and gets one answer
        pieces = self._parts(value, rows, units)
        tasks = [asyncio.ensure_future(self._submit(piece, count, deadline, gone)) for piece, count in pieces]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # where one failed, or found no room, nobody waits for the others, and they need not run
                task.cancel()
        return self._output_batching(results[0]).merge(results)

    def put(
        self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, gone: Callable[[], bool], answer: Answer
    ) -> Entry | None:
        """Put a request into the queue and do not wait, as `Batcher.put`; None where it takes more than one batch.
        The executor sleeps on until `wake`.

        Raises:
            ServiceError: the input is not one of this API, or there is no room for it.
        """
        value, _, units = self._measure(args, named)
        if units > self._size:
            return None
        return self._batcher.put(
            value, units=units, key=self._key_of(value), deadline=deadline, gone=gone, answer=answer, wake=False
        )

    def wake(self) -> None:
        """Wake the executor, if it sleeps."""
        self._batcher.wake()

    def deliver(self) -> None:
        """Hand out the answers that are there."""
        self._batcher.deliver()

    def forget(self, entry: Entry) -> None:
        """What was put has its answer."""
        self._batcher.forget(entry)

    def _measure(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, int, int]:
        """The input, its rows and its units.

        Raises:
            InvalidArgument: it has no rows.
            InvalidOutput: ``batch_units`` gave no units.
        """
        value = args[0] if args else next(iter(named.values()))
        try:
            rows = self._input_batching.count(value)
        except ValueError as error:
            where = "$" if self.spec.root else f"$.{self.spec.parameters[0].name}"
            raise InvalidArgument(f"{where}: {error}", details={"path": where}) from None
        return value, rows, self._units_of(value, rows)

    def _units_of(self, value: Any, rows: int) -> int:
        """A whole number of Python's own, 1 at least: sums of an array library's numbers may wrap.

        Raises:
            InvalidOutput: ``batch_units`` gave something else than a finite number from 0 on.
        """
        if self._units is None:
            return max(1, rows)
        given = self._units(value)
        try:
            if isinstance(given, (str, bytes, bytearray)):
                raise TypeError
            number = given if isinstance(given, int) else float(given)
        except (TypeError, ValueError):
            raise self._no_units(kind_of(given)) from None
        if not 0 <= number < math.inf:
            raise self._no_units("less than 0" if number < 0 else str(number))
        return max(1, math.ceil(number))

    def _no_units(self, given: str) -> InvalidOutput:
        return InvalidOutput(
            f"batch_units of {self.spec.name} gave {given} instead of a positive number",
            hint="give how many units the input has, such as its tokens",
        )

    def _submit(self, value: Any, units: int, deadline: float, gone: Callable[[], bool]) -> Any:
        return self._batcher.submit(value, units=units, key=self._key_of(value), deadline=deadline, gone=gone)

    def _key_of(self, value: Any) -> object:
        own = None if self._pad is not None else self._input_batching.key(value)
        return own if self._key is None else (own, self._key(value))

    def _parts(self, value: Any, rows: int, units: int) -> list[tuple[Any, int]]:
        """Parts of an input that fit into a batch, with their units.

        Raises:
            PayloadTooLarge: one row alone does not fit, or there are more parts than may wait.
        """
        size, batching = self._size, self._input_batching
        if self._units is None:
            counts = [min(size, rows - start) for start in range(0, rows, size)]
            found = (
                list(zip(batching.split(value, counts), counts, strict=True)) if len(counts) <= self._max_items else []
            )
        elif rows <= 1:
            raise PayloadTooLarge(f"an item of the body has {units} units, at most {size} are taken")
        else:
            found = []
            for part, count in zip(batching.split(value, halves := [rows // 2, rows - rows // 2]), halves, strict=True):
                own = self._units_of(part, count)
                found += [(part, own)] if own <= size else self._parts(part, count, own)
        if not 0 < len(found) <= self._max_items:
            raise PayloadTooLarge(f"the body has {rows} rows: more than {self._max_items} batches")
        return found

    def _output_batching(self, value: Any) -> Batching:
        make, dimension = self.spec.output.batching, self.spec.options.batch_dim[1]
        return make(dimension) if make is not None else _batching_of(value, dimension)

    def _split(self, merged: Any, counts: Sequence[int]) -> list[Any]:
        batching = self._output_batching(merged)
        rows = batching.count(merged)
        if rows != sum(counts):
            raise InvalidOutput(f"{self.spec.name} returned {rows} rows for {sum(counts)}")
        return batching.split(merged, counts)

    def _merged(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of one call for all."""
        merged = self._input_batching.merge(values if self._pad is None else self._pad(values))
        parameter = self.spec.parameters[0]
        return ((), {parameter.name: merged}) if parameter.keyword_only else ((merged,), {})

    def _batch_sync(self, values: Sequence[Any]) -> list[Any]:
        args, named = self._merged(values)
        return self._split(self._bound(*args, **named), [self._input_batching.count(value) for value in values])

    async def _batch_async(self, values: Sequence[Any]) -> list[Any]:
        args, named = self._merged(values)
        return self._split(await self._bound(*args, **named), [self._input_batching.count(value) for value in values])
