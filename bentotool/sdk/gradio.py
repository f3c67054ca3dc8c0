"""``bentotool.gradio.mount_gradio_app``: a Gradio page as a part of a service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from bentotool.errors import ConfigError
from bentotool.sdk.mounting import asgi_app

__all__ = ["mount_gradio_app"]

T = TypeVar("T")


def mount_gradio_app(blocks: Any, path: str = "/ui", name: str = "gradio_ui") -> Callable[[T], T]:
    """Mount Gradio's ``Blocks`` or ``Interface`` on a service, above or below ``@service``.

    A handler of the page finds the service's instance with ``bentotool.get_current_service()``.

    Raises:
        ConfigError: the packages ``gradio`` and ``fastapi`` are not installed.
    """
    try:
        import fastapi  # type: ignore[import-not-found, unused-ignore]
        import gradio  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ConfigError(f"a Gradio page needs the package {error.name!r}", hint="pip install gradio") from error
    # it answers at its own root, and finds in each request where that is: below `path`, and the service's prefix
    page = gradio.mount_gradio_app(fastapi.FastAPI(), blocks, path="/")
    return asgi_app(page, path=path, name=name)
