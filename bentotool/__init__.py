"""bentotool: from a model file to a running, scaled, trusted service.

Every public name is imported when it is first used (PEP 562), so that ``import bentotool`` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # that of `typing`, whose import would be most of what ours costs

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from bentotool import images, monitoring
    from bentotool.client.http import AsyncHTTPClient, SyncHTTPClient
    from bentotool.client.serving import serve
    from bentotool.sdk import exceptions, metrics, validators
    from bentotool.sdk.api import api, on_deployment, on_shutdown, on_startup, on_warmup
    from bentotool.sdk.arguments import use_arguments
    from bentotool.sdk.context import Context
    from bentotool.sdk.current import get_current_service, server_context
    from bentotool.sdk.dependency import depends
    from bentotool.sdk.importing import importing
    from bentotool.sdk.monitor import monitor
    from bentotool.sdk.mounting import asgi_app, mount_asgi_app, wsgi_app
    from bentotool.sdk.response import Response, ServerSentEvent
    from bentotool.sdk.secret import Secret
    from bentotool.sdk.service import Service, service
    from bentotool.sdk.task import task
    from bentotool.sdk.taskrun import TaskCanceled, current_task
    from bentotool.sdk.websocket import WebSocket, WebSocketDisconnect, websocket

__all__ = [
    "AsyncHTTPClient",
    "Context",
    "Response",
    "Secret",
    "ServerSentEvent",
    "Service",
    "SyncHTTPClient",
    "TaskCanceled",
    "WebSocket",
    "WebSocketDisconnect",
    "api",
    "asgi_app",
    "current_task",
    "depends",
    "exceptions",
    "get_current_service",
    "images",
    "importing",
    "metrics",
    "monitor",
    "monitoring",
    "mount_asgi_app",
    "on_deployment",
    "on_shutdown",
    "on_startup",
    "on_warmup",
    "serve",
    "server_context",
    "service",
    "task",
    "use_arguments",
    "validators",
    "websocket",
    "wsgi_app",
]

_NAMES = {
    "AsyncHTTPClient": "bentotool.client.http",
    "Context": "bentotool.sdk.context",
    "Field": "pydantic",
    "Response": "bentotool.sdk.response",
    "Secret": "bentotool.sdk.secret",
    "ServerSentEvent": "bentotool.sdk.response",
    "Service": "bentotool.sdk.service",
    "SyncHTTPClient": "bentotool.client.http",
    "TaskCanceled": "bentotool.sdk.taskrun",
    "WebSocket": "bentotool.sdk.websocket",
    "WebSocketDisconnect": "bentotool.sdk.websocket",
    "api": "bentotool.sdk.api",
    "asgi_app": "bentotool.sdk.mounting",
    "current_task": "bentotool.sdk.taskrun",
    "depends": "bentotool.sdk.dependency",
    "get_current_service": "bentotool.sdk.current",
    "importing": "bentotool.sdk.importing",
    "monitor": "bentotool.sdk.monitor",
    "mount_asgi_app": "bentotool.sdk.mounting",
    "on_deployment": "bentotool.sdk.api",
    "on_shutdown": "bentotool.sdk.api",
    "on_startup": "bentotool.sdk.api",
    "on_warmup": "bentotool.sdk.api",
    "serve": "bentotool.client.serving",
    "server_context": "bentotool.sdk.current",
    "service": "bentotool.sdk.service",
    "task": "bentotool.sdk.task",
    "use_arguments": "bentotool.sdk.arguments",
    "websocket": "bentotool.sdk.websocket",
    "wsgi_app": "bentotool.sdk.mounting",
}
_MODULES = {
    "exceptions": "bentotool.sdk.exceptions",
    "gradio": "bentotool.sdk.gradio",
    "images": "bentotool.images",
    "metrics": "bentotool.sdk.metrics",
    "monitoring": "bentotool.monitoring",
    "validators": "bentotool.sdk.validators",
    "models": "bentotool.models",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _NAMES:
        value: Any = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name.startswith("_"):
        raise AttributeError(f"module 'bentotool' has no attribute {name!r}")
    else:
        value = _framework(name)
    globals()[name] = value
    return value


def _framework(name: str) -> Any:
    """``bentotool.onnx`` and the like: whatever framework plugin, or loader in the Bento, has that name."""
    import importlib

    try:
        frameworks = importlib.import_module("bentotool.frameworks")
    except ModuleNotFoundError as error:
        if error.name != "bentotool.frameworks":
            raise
        raise AttributeError(f"module 'bentotool' has no attribute {name!r}") from None
    return frameworks.namespace(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
