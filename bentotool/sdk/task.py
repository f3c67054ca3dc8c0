"""``@task``: an API that can also be submitted now and be done later, by whichever worker is free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, overload

from bentotool.errors import ConfigError
from bentotool.sdk.api import MARK, ApiOptions, checked_options

__all__ = ["PRIORITIES", "TaskOptions", "task"]

F = TypeVar("F", bound=Callable[..., Any])
PRIORITIES = range(-100, 101)
_DAY = 86_400.0


@dataclass(frozen=True)
class TaskOptions(ApiOptions):
    """What ``@task`` was given: the options of ``@api``, and these.

    Attributes:
        timeout: seconds that one run may take; None for no limit. A direct call keeps to ``traffic.timeout`` too.
        retries: how often a run that failed is tried again. What the caller did wrong (4xx) is not.
        retry_delay: seconds before the first retry; each further one waits twice as long, up to `retry_max_delay`.
        priority: from -100 to 100; the higher ones are run first.
        result_ttl: seconds for which input and result are kept once the task has ended.
        max_waiting: tasks in the queue, above which submitting is answered with 503.
        parallel: runs at once in one worker. They do not take the threads of the APIs.
    """

    retries: int = 0
    retry_delay: float = 1.0
    retry_max_delay: float = 300.0
    priority: int = 0
    result_ttl: float = _DAY
    max_waiting: int = 10_000
    parallel: int = 1


_OWN = {item.name for item in fields(TaskOptions)} - {item.name for item in fields(ApiOptions)}


def _check_counts(own: dict[str, Any]) -> None:
    for key, least in (("retries", 0), ("max_waiting", 1), ("parallel", 1)):
        value = own.get(key, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{value!r} is not a whole number from {least}", path=("@task", key))
    for key in ("retry_delay", "retry_max_delay", "result_ttl"):
        value = own.get(key, 1)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ConfigError(f"{value!r} is not a time above 0", path=("@task", key))
    priority = own.get("priority", 0)
    if isinstance(priority, bool) or priority not in PRIORITIES:
        raise ConfigError(f"{priority!r} is not a whole number from -100 to 100", path=("@task", "priority"))


@overload
def task(func: F, /) -> F: ...
@overload
def task(**options: Any) -> Callable[[F], F]: ...
def task(func: Any = None, /, **options: Any) -> Any:
    """Make a method of a service a task. Options: see `TaskOptions`.

    Raises:
        ConfigError: an unknown option, a wrong value, or another method than POST.
    """
    own = {key: options.pop(key) for key in list(options) if key in _OWN}
    _check_counts(own)
    checked = checked_options(dict(options), "@task", sorted(_OWN))
    if checked.method != "POST":
        raise ConfigError(f"a task is asked with POST, not with {checked.method}", path=("@task", "method"))
    made = TaskOptions(**{item.name: getattr(checked, item.name) for item in fields(ApiOptions)}, **own)

    def mark(target: F) -> F:
        setattr(target, MARK, made)
        return target

    return mark if func is None else mark(func)
