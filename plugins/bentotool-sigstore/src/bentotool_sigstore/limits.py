"""An end to every wait: sigstore's own requests to Fulcio and Rekor have none, nor has the look-up of a name."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from bentotool.errors import RemoteError, UsageError

if TYPE_CHECKING:
    import requests

__all__ = ["TIMEOUT", "limited", "timeout", "within"]

TIMEOUT = "BENTOTOOL_SIGSTORE_TIMEOUT"
"""Environment variable: seconds that one service may take for one answer."""
_DEFAULT, _LONGEST = 60.0, 3600.0  # a log of Rekor 2 answers when it has a batch together
_CONNECT = 10.0

Result = TypeVar("Result")


def timeout() -> float:
    """Seconds that one service may take for one answer.

    Raises:
        UsageError: the environment does not say so many.
    """
    stated = os.environ.get(TIMEOUT) or str(_DEFAULT)
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(stated)) <= _LONGEST:
            return seconds
    raise UsageError(f"{TIMEOUT}={stated[:40]!r} is no number of seconds", hint=f"up to {_LONGEST:.0f}")


def within(seconds: float, what: str, call: Callable[[threading.Event], Result], *, hint: str) -> Result:
    """Call something that waits for others, and give up on it after a time.

    Args:
        what: who is waited for, for the message.
        call: in a thread of its own; the event is set when nobody waits for it any longer.
        hint: what to do then.

    Raises:
        RemoteError: nothing came in time.
        BaseException: what the call raises.
    """
    over, done = threading.Event(), threading.Event()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call(over))
        except BaseException as error:  # handed to the thread that waits
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="bentotool-sigstore", daemon=True).start()
    try:
        if not done.wait(seconds):
            raise RemoteError(f"{what} did not answer within {seconds:g} s", hint=hint)
    finally:
        over.set()
    if failure:
        raise failure[0]
    return outcome[0]


@contextlib.contextmanager
def limited(session: requests.Session, url: str, seconds: float, over: threading.Event) -> Iterator[None]:
    """Let a session's requests end with the wait for them; where they are led to, is judged.

    Args:
        url: of the service.
        over: ends them at once.
    """
    from bentotool.oci.connections import PacedAdapter, Timeouts
    from bentotool.oci.origins import origin_of

    class Adapter(PacedAdapter):
        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = (min(_CONNECT, seconds), seconds)
            return super().send(request, *arguments, **options)

    adapter = Adapter(Timeouts(connect=min(_CONNECT, seconds), read=seconds), origin_of(url), stop=over)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    try:
        yield
    finally:
        adapter.close()
