"""What Litestar hosts: probes, metrics, documents and the Swagger page, which loads nothing from other hosts."""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request, Response, get
from litestar.exceptions import HTTPException, NotFoundException

from bentotool.runtime.readiness import why_not_ready
from bentotool.sdk.exceptions import ServiceError

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["make_pages"]

_ASSETS = Path(__file__).parent / "swagger"
_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="assets/swagger-ui-bundle.js"></script>
<script src="assets/start.js" data-url="docs.json"></script>
</body></html>
"""
_PREFIX = re.compile(r"(/[A-Za-z0-9_.~-]+)+")
_START = (
    "SwaggerUIBundle({url: document.currentScript.dataset.url, dom_id: '#swagger-ui', validatorUrl: null, "
    "presets: [SwaggerUIBundle.presets.apis]});\n"
)


def _error(status: int, code: str, message: str, hint: str | None = None) -> Response[Any]:
    return Response({"error": {"code": code, "message": message, "hint": hint}}, status_code=status)


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    if isinstance(error, NotFoundException):
        return _error(404, "not_found", f"nothing is at {request.url.path}", "GET / lists what there is")
    codes = {405: "method_not_allowed"}
    answer = _error(error.status_code, codes.get(error.status_code, "http"), error.detail.lower() or "refused")
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def _on_service_error(_request: Request[Any, Any, Any], error: ServiceError) -> Response[Any]:
    return Response(error.to_dict(), status_code=error.http_status)


def _probes(app: Application) -> list[Any]:
    further = app.service.config.endpoints

    def paths(*probes: str) -> list[str]:
        """The paths of probes, and those that the service wants them to have too."""
        found = [f"/{probe}" for probe in probes] + [further[probe] for probe in probes if probe in further]
        return list(dict.fromkeys(found))

    @get(paths("livez", "healthz"), media_type="text/plain")
    async def livez() -> str:
        if not await app.probe("__is_alive__"):
            raise ServiceError("the service says that it is not alive", 503)
        return ""

    @get(paths("readyz"), media_type="text/plain")
    async def readyz() -> str:
        problem = await why_not_ready(app)
        if problem is not None:
            raise ServiceError(problem, 503)
        return ""

    @get("/metrics")  # Litestar adds the charset to the type
    async def metrics() -> Response[bytes]:
        if app.tasks:
            await app.tasks.runner.refresh_metrics()
        content = await app.edit_metrics(await asyncio.to_thread(app.metrics.render) if app.metrics else b"")
        return Response(content, media_type="text/plain; version=0.0.4")

    return [livez, readyz, metrics]


def _documents(app: Application) -> list[Any]:
    service = app.service

    @get("/schema.json")
    async def schema() -> dict[str, Any]:
        return service.schema()

    @get("/docs.json")
    async def docs(request: Request[Any, Any, Any]) -> dict[str, Any]:
        outside = request.headers.get("x-forwarded-prefix", "").rstrip("/")  # what a proxy takes off the paths
        servers = {"servers": [{"url": outside}]} if _PREFIX.fullmatch(outside) else {}
        return {**service.openapi(), **servers}

    @get("/", media_type="text/html")
    async def page(request: Request[Any, Any, Any]) -> Response[str]:
        path = request.scope["raw_path"].decode("ascii", "replace")  # Litestar takes the slash off the other
        if not path.endswith("/"):  # the page's links begin where it is, whatever a proxy puts in front
            return Response("", status_code=307, headers={"Location": f"{path.rpartition('/')[2]}/"})
        html = _PAGE.format(title=service.name)  # it cannot hold markup: it is checked
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    @get("/assets/{name:str}")
    async def asset(request: Request[Any, Any, Any]) -> Response[bytes]:
        name = request.path_params["name"]
        if name == "start.js":
            return Response(_START.encode(), media_type="text/javascript")
        if name not in _TYPES:
            raise NotFoundException
        content, headers = (
            (_ASSETS / f"{name}.gz").read_bytes(),
            {"Cache-Control": "max-age=86400", "Vary": "Accept-Encoding"},
        )
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            content = gzip.decompress(content)
        return Response(content, media_type=_TYPES[name], headers=headers)

    return [schema, docs, page, asset]


class _Pages(Litestar):
    """Litestar without the plugins it adds for whatever is installed: they import pydantic for no use of ours."""

    @staticmethod
    def _get_default_plugins(plugins: list[Any]) -> list[Any]:
        return plugins


def make_pages(app: Application) -> Litestar:
    """Everything that is not an API."""
    return _Pages(
        route_handlers=[*_probes(app), *_documents(app)],
        path=app.service.path_prefix or None,
        openapi_config=None,
        logging_config=None,
        exception_handlers={HTTPException: _on_http_error, ServiceError: _on_service_error},
    )
