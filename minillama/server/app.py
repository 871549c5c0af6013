"""The ASGI application: endpoints, access control, and errors as JSON."""

import logging
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from minillama.errors import MinillamaError
from minillama.server.access_control import AccessControl
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.endpoints.endpoint_table import TABLES
from minillama.server.endpoints.protocols.vertex import vertex_endpoints
from minillama.server.http_errors import ErrorKind, RequestError, error_response
from minillama.server.idle_sleep import SleepFacts
from minillama.server.model_facts import model_list, properties
from minillama.server.model_host import ModelHost

logger = logging.getLogger("minillama")


def build_app(host: ModelHost, tables: Iterable[Iterable[Endpoint]] = TABLES) -> Starlette:
    """The application of a model host."""
    host.sleep.describe = lambda: SleepFacts(model_list(host), properties(host))
    endpoints = [endpoint for table in tables for endpoint in table]
    prefix, vertex = host.settings.api_prefix, host.settings.vertex
    if vertex is not None:
        endpoints = [*vertex_endpoints(endpoints, vertex.predict_path, vertex.health_path, prefix), *endpoints]
    routes: list[BaseRoute] = [
        Route(prefix + path, Answering(endpoint, host), methods=[endpoint.method])
        for endpoint in endpoints
        for path in endpoint.paths
    ]
    public, early = (
        frozenset(prefix + path for endpoint in endpoints if getattr(endpoint, flag) for path in endpoint.paths)
        for flag in ("is_public", "is_early")
    )
    return Starlette(
        routes=routes,
        middleware=[Middleware(AccessControl, host=host, public=public, early=early)],
        exception_handlers={HTTPException: _not_found},
    )


class Answering:
    """The ASGI application of one endpoint; exceptions become JSON errors."""

    def __init__(self, endpoint: Endpoint, host: ModelHost) -> None:
        self._endpoint, self._host = endpoint, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._endpoint.wakes and not self._endpoint.is_early:
            async with self._host.sleep.awake():
                await self._answer(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        try:
            answer = await self._endpoint.handler(Request(scope, receive), self._host)
        except Exception as error:
            if not isinstance(error, RequestError | MinillamaError):
                logger.exception("%s %s failed", scope["method"], scope["path"])
            answer = error_response(error)
        await answer(scope, receive, send)


async def _not_found(request: Request, error: Exception) -> Response:
    """The answer for an unknown path or method."""
    return error_response(RequestError(ErrorKind.NOT_FOUND, "File Not Found"))
