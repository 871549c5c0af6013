"""Vertex AI's predictions: each instance is answered by its endpoint, and a wrong one has an error of its own."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.endpoints.protocols.vertex import camel_case, vertex_endpoints
from minillama.server.http_errors import error_response, json_response
from minillama.server.request_body import read_object


async def post_echo(request: Request, host: Any) -> Response:
    return json_response(dict(await read_object(request)))


async def get_health(request: Request, host: Any) -> Response:
    return json_response({"status": "ok"})


@pytest.fixture
def client() -> TestClient:
    endpoints = [Endpoint("POST", ("/v1/chat/completions",), post_echo), Endpoint("GET", ("/health",), get_health)]
    endpoints = [*vertex_endpoints(endpoints, "/predict", "/alive", ""), *endpoints]

    def route(endpoint: Endpoint, path: str) -> Route:
        async def answer(request: Request) -> Any:
            try:
                return await endpoint.handler(request, None)  # type: ignore[arg-type]
            except Exception as error:
                return error_response(error)

        return Route(path, answer, methods=[endpoint.method])

    return TestClient(Starlette(routes=[route(each, path) for each in endpoints for path in each.paths]))


def test_each_instance_has_its_prediction(client: TestClient) -> None:
    instances: list[Any] = [
        {"@requestFormat": "chatCompletions", "n": 1, "stream": True},
        {"@requestFormat": "/v1/chat/completions", "n": 2},
        {"@requestFormat": "unknown"},
        {"n": 3},
        7,
    ]
    predictions = client.post("/predict", json={"instances": instances}).json()["predictions"]
    assert predictions[:2] == [{"n": 1, "stream": False}, {"n": 2, "stream": False}]
    assert [prediction["error"]["code"] for prediction in predictions[2:]] == [400, 400, 400]


@pytest.mark.parametrize("body", [{}, {"instances": {}}, {"instances": [{}] * 129}])
def test_wrong_requests_are_refused(client: TestClient, body: Any) -> None:
    assert client.post("/predict", json=body).status_code == 400


def test_the_health_path(client: TestClient) -> None:
    assert client.get("/alive").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "name"),
    [("/v1/chat/completions", "chatCompletions"), ("/apply-template", "applyTemplate"), ("/tokenize", "tokenize")],
)
def test_names_of_paths(path: str, name: str) -> None:
    assert camel_case(path) == name
