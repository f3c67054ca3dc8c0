"""Whether a service is ready: itself, its command, and the services of the same server that it calls."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from bentotool.sdk.dependency import provided

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.sdk.service import Service

__all__ = ["why_not_ready"]

_log = logging.getLogger("bentotool.service")


async def why_not_ready(app: Application) -> str | None:
    """Why requests are not to be sent here now; None where they are.

    What answers at an address of its own is not asked: else one service that is away would take all others along.
    """
    if app.problem is not None:
        return app.problem
    if app.command is not None and (problem := await app.command.asked()) is not None:
        return problem
    if not app.ready:
        return "the server is starting or shutting down"
    if not await app.probe("__is_ready__"):
        return "the service says that it is not ready"
    for dependency in app.service.dependencies.values():
        peer = provided(dependency.name) if dependency.on is not None else None
        if peer is not None:
            problem = await peer.why_not_ready()
        elif dependency.on is not None and dependency.local:
            problem = await _inside(dependency.on)
        else:
            continue
        if problem is not None:
            return problem if dependency.name in problem else f"service {dependency.name}: {problem}"
    return None


async def _inside(service: Service[Any]) -> str | None:
    """A service of this process."""
    question = getattr(service.shared_instance(), "__is_ready__", None)
    try:
        said = True if question is None else question()
        ready = bool(await said if inspect.isawaitable(said) else said)
    except Exception:
        _log.exception("%s.__is_ready__ failed", service.name)
        ready = False
    return None if ready else "the service says that it is not ready"
