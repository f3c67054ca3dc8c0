"""``depends(Other)``: one service used by another. In this release both live in the same process."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bentotool.errors import ConfigError

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["Dependency", "Handle", "depends"]

T = TypeVar("T")


class _Async:
    """The dependency with every method awaitable; synchronous ones run in a thread."""

    def __init__(self, instance: object) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method) or not callable(method):
            return method

        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


class Handle:
    """What service code sees of a dependency: its methods, and `to_async`."""

    def __init__(self, instance: object) -> None:
        self._instance = instance

    @property
    def to_async(self) -> _Async:
        return _Async(self._instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)


class Dependency(Generic[T]):
    """A class attribute that gives the other service's instance."""

    def __init__(self, on: Service[T]) -> None:
        self.on = on

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else Handle(self.on.shared_instance())


def depends(on: Service[T]) -> Any:
    """Declare that a service uses another.

    Raises:
        ConfigError: `on` is not a service.
    """
    if not hasattr(on, "shared_instance"):
        raise ConfigError(f"depends({on!r}): not a service", hint="decorate the class with @bentotool.service")
    return Dependency(on)
