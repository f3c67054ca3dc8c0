"""``@api`` and the life-cycle decorators: marks on plain functions, read when the service is declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from bentotool.errors import ConfigError
from bentotool.sdk.config import suggest

__all__ = ["ApiOptions", "api", "on_deployment", "on_shutdown", "on_startup", "on_warmup", "options_of"]

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__bentotool_api__"
_HOOK = "__bentotool_hook__"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class ApiOptions:
    """What ``@api`` was given.

    Attributes:
        route: path, by default ``/<name>``; ``/items/{id}`` takes the parameter `id` from the path.
        name: the API's name, by default the function's.
        batchable: requests may be merged along `batch_dim`, (input, output).
        max_batch_size: rows in one call at most. A request with more rows is split over several calls.
        batch_key: requests share a batch only when this gives the same for their inputs, besides what always has to be
            the same (the type and shape of arrays). A function of the input, or the name of a method of the service.
        batch_units: what an input counts against `max_batch_size`, instead of its rows. Given as `batch_key` is.
        batch_pad: inputs of one batch → the same made alike, before they are merged; shapes may differ then. Given as
            `batch_key` is.
        batch_policy: decides on batches; called as `bentotool.runtime.batchqueue.BatchQueue`, whose place it takes.
        max_latency_ms: longest time an item may take from its arrival to its answer.
        method: HTTP method. GET and DELETE take their parameters from the query, the others from the body.
        timeout: seconds; None for the service's ``traffic.timeout``.
        concurrency: requests of this API in flight over all workers, above which the answer is 429.
        input_spec: a type that describes the whole input instead of the function's parameters.
        output_spec: a type that describes the output instead of the return annotation.
    """

    route: str | None = None
    name: str | None = None
    batchable: bool = False
    batch_dim: tuple[int, int] = (0, 0)
    max_batch_size: int = 100
    batch_key: Callable[[Any], Any] | str | None = None
    batch_units: Callable[[Any], int] | str | None = None
    batch_pad: Callable[[Sequence[Any]], Sequence[Any]] | str | None = None
    batch_policy: Callable[..., Any] | None = None
    max_latency_ms: float = 60_000
    method: str = "POST"
    timeout: float | None = None
    concurrency: int | None = None
    input_spec: Any = None
    output_spec: Any = None
    description: str | None = None


_KNOWN = list(ApiOptions.__dataclass_fields__)


def checked_options(given: dict[str, Any], where: str = "@api", further: Sequence[str] = ()) -> ApiOptions:
    """The options of ``@api``; `further` ones of another decorator are offered as suggestions too.

    Raises:
        ConfigError: an unknown option, or a wrong value.
    """
    for key in given:
        if key not in _KNOWN:
            raise ConfigError(f"unknown option {key!r}", path=(where,), hint=suggest(key, [*_KNOWN, *further]))
    dimension = given.get("batch_dim", 0)
    dimensions = dimension if isinstance(dimension, (tuple, list)) else (dimension, dimension)
    if len(dimensions) != 2 or not all(isinstance(each, int) and not isinstance(each, bool) for each in dimensions):
        raise ConfigError(f"{dimension!r} is not a dimension, nor two of them", path=(where, "batch_dim"))
    given["batch_dim"] = tuple(dimensions)
    options = ApiOptions(**given)
    if options.max_batch_size < 1:
        raise ConfigError(f"{options.max_batch_size} is not a number above 0", path=(where, "max_batch_size"))
    if options.max_latency_ms <= 0:
        raise ConfigError(f"{options.max_latency_ms} is not a time above 0", path=(where, "max_latency_ms"))
    if options.timeout is not None and options.timeout <= 0:
        raise ConfigError(f"{options.timeout} is not a time above 0", path=(where, "timeout"))
    if options.concurrency is not None and options.concurrency < 1:
        raise ConfigError(f"{options.concurrency} is not a number above 0", path=(where, "concurrency"))
    if options.method not in _METHODS:
        raise ConfigError(f"{options.method!r} is none of {', '.join(_METHODS)}", path=(where, "method"))
    return options


@overload
def api(func: F, /) -> F: ...
@overload
def api(**options: Any) -> Callable[[F], F]: ...
def api(func: Any = None, /, **options: Any) -> Any:
    """Make a method of a service callable over HTTP. Options: see `ApiOptions`.

    Raises:
        ConfigError: an unknown option, or a wrong value.
    """
    checked = checked_options(dict(options))

    def mark(target: F) -> F:
        setattr(target, MARK, checked)
        return target

    return mark if func is None else mark(func)


def options_of(func: object) -> ApiOptions | None:
    """What `api` left on a function; None where it is none."""
    found = getattr(func, MARK, None)
    return found if isinstance(found, ApiOptions) else None


def _hook(kind: str) -> Callable[[F], F]:
    def mark(func: F) -> F:
        target = func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
        setattr(target, _HOOK, kind)
        return func

    return mark


on_startup = _hook("startup")
"""Each worker calls it before it answers anything. The method may be ``async def``, as of all these hooks."""
on_warmup = _hook("warmup")
"""Each worker calls it when all else has started and before it is ready: a first prediction, a compilation."""
on_shutdown = _hook("shutdown")
"""Each worker calls it once the last request is answered."""
on_deployment = _hook("deployment")
"""Called once, on the class, before any worker makes an instance: stands on a static or class method."""


def hook_of(func: object) -> str | None:
    """``startup``, ``warmup``, ``shutdown``, ``deployment`` or None."""
    target = func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
    found = getattr(target, _HOOK, None)
    return found if isinstance(found, str) else None
