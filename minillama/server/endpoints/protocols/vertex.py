"""Google Vertex AI's prediction protocol: one request with many instances, each for another endpoint.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements. The environment variable AIP_MODE
with the value PREDICTION turns it on. `@requestFormat` of an instance is a path, or its name in camel case:
`chatCompletions` is /v1/chat/completions.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import ErrorKind, RequestError, encode_json, error_response, invalid, json_response
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object

MOST_INSTANCES = 128


@dataclass(frozen=True)
class Vertex:
    """The prediction endpoint: paths of the endpoints by name and by path."""

    targets: Mapping[str, str]

    async def post_predict(self, request: Request, host: ModelHost) -> Response:
        """Answer all instances at once; an instance that fails is an object with `error`."""
        instances = (await read_object(request)).get("instances")
        if not isinstance(instances, list):
            raise invalid("request body must include an array field named instances")
        if len(instances) > MOST_INSTANCES:
            raise invalid(f"instances array exceeds maximum size of {MOST_INSTANCES}")
        closed = asyncio.Event()
        watch = asyncio.ensure_future(_watch(request, closed))
        try:
            predictions = await asyncio.gather(*(self._predict(request, each, closed) for each in instances))
        finally:
            watch.cancel()
        return json_response({"predictions": predictions})

    async def _predict(self, request: Request, instance: object, closed: asyncio.Event) -> object:
        try:
            path, body = self._target(instance)
        except RequestError as error:
            return {"error": error.body}
        return await _call(request, path, body, closed)

    def _target(self, instance: object) -> tuple[str, Mapping[str, object]]:
        if not isinstance(instance, dict):
            raise invalid("each instance must be a JSON object")
        name = instance.get("@requestFormat")
        if not isinstance(name, str):
            raise invalid("each instance must include a string @requestFormat")
        if name not in self.targets:
            raise invalid(f"no handler registered for @requestFormat: {name:.100}")
        body = {key: value for key, value in instance.items() if key != "@requestFormat"}
        return self.targets[name], body | {"stream": False}


def vertex_endpoints(endpoints: list[Endpoint], predict_path: str, health_path: str, prefix: str) -> list[Endpoint]:
    """The endpoints of the protocol, next to the others."""
    paths = [prefix + path for each in endpoints if each.method == "POST" for path in each.paths if "{" not in path]
    names = {camel_case(path.removeprefix(prefix)): path for path in reversed(paths)}  # the first of two wins
    found = [Endpoint("POST", (predict_path,), Vertex({**names, **{p: p for p in paths}}).post_predict)]
    health = next((each for each in endpoints if "/health" in each.paths), None)
    if health_path and health is not None:
        found.append(Endpoint("GET", (health_path,), health.handler, is_public=True))
    return found


def camel_case(path: str) -> str:
    """A path as a name: /v1/chat/completions is `chatCompletions`."""
    words = [word for word in path.removeprefix("/v1").replace("-", "/").replace("_", "/").split("/") if word]
    return "".join(word if place == 0 else word[0].upper() + word[1:] for place, word in enumerate(words))


async def _call(request: Request, path: str, body: Mapping[str, object], closed: asyncio.Event) -> object:
    """The JSON answer of another endpoint of this server."""
    sent, parts = False, []

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": encode_json(body)}
        await closed.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        parts.append(message.get("body", b""))

    scope = {**request.scope, "path": path, "raw_path": path.encode(), "method": "POST", "headers": []}
    try:
        await request.app.router(scope, receive, send)
        return json.loads(b"".join(parts))
    except (RequestError, ValueError):
        return json.loads(bytes(error_response(RequestError(ErrorKind.SERVER, "no answer")).body))


async def _watch(request: Request, closed: asyncio.Event) -> None:
    """Note when the client closes its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    closed.set()
