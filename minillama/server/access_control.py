"""Access control before an endpoint: CORS headers, API keys, 503 while the model loads."""

from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minillama.server.http_errors import ErrorKind, RequestError, error_response
from minillama.server.model_host import ModelHost
from minillama.server.settings import Cors

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class AccessControl:
    """ASGI middleware around all endpoints.

    public: paths that need no key. early: paths that answer before the model is loaded.
    """

    def __init__(self, app: ASGIApp, host: ModelHost, public: frozenset[str], early: frozenset[str]) -> None:
        self._app, self._host, self._public, self._early = app, host, public, early
        self._keys = tuple(key.encode() for key in host.settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand the request to the endpoint."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        extra = {"server": "minillama", **cors_headers(self._host.settings.cors, headers.get("origin", ""))}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(extra)
                message["headers"] = [(name.title(), value) for name, value in message["headers"]]  # Content-Type
            await send(message)

        answer = self._answer(scope, headers)
        await (self._app if answer is None else answer)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer of a request that does not reach its endpoint."""
        if scope["method"] == "OPTIONS":  # browsers send it without the key
            return Response(headers=preflight_headers(self._host.settings.cors), media_type="text/html")
        path = scope["path"]
        if not self._host.is_ready and path not in self._early:
            return error_response(RequestError(ErrorKind.UNAVAILABLE, "Loading model"))
        if self._keys and path not in self._public and not self._has_key(headers):
            return error_response(RequestError(ErrorKind.AUTHENTICATION, "Invalid API Key"))
        return None

    def _has_key(self, headers: Headers) -> bool:
        given = headers.get("authorization") or headers.get("x-api-key") or ""
        key = given.removeprefix("Bearer ").encode()
        return sum(compare_digest(key, known) for known in self._keys) > 0  # compares all: in constant time


def cors_headers(cors: Cors, origin: str) -> dict[str, str]:
    """Headers of every answer to a request from a page of `origin`."""
    if cors.credentials and cors.origins == "*":
        return {"access-control-allow-origin": origin}
    if cors.origins == "localhost":
        return {"access-control-allow-origin": origin} if _is_local(origin) else {}
    return {"access-control-allow-origin": cors.origins}


def preflight_headers(cors: Cors) -> dict[str, str]:
    """Further headers of the answer to OPTIONS."""
    return {
        "access-control-allow-credentials": "true" if cors.credentials else "false",
        "access-control-allow-methods": cors.methods,
        "access-control-allow-headers": cors.headers,
    }


def _is_local(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.hostname in LOOPBACK
    except ValueError:
        return False
