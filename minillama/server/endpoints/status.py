"""Endpoints about the server itself: health, models, properties, slots, metrics."""

from starlette.requests import Request
from starlette.responses import Response

from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import ErrorKind, RequestError, json_response, not_supported
from minillama.server.model_facts import model_list, properties
from minillama.server.model_host import ModelHost
from minillama.server.slot_list import slot_list

METRICS_TYPE = "text/plain; version=0.0.4"


async def get_health(request: Request, host: ModelHost) -> Response:
    """`ok`; while the model loads, access control has answered 503."""
    return json_response({"status": "ok"})


async def get_models(request: Request, host: ModelHost) -> Response:
    """The one model of the server."""
    return json_response(host.sleep.facts.models if host.sleep.is_asleep else model_list(host))


async def get_props(request: Request, host: ModelHost) -> Response:
    """Defaults of requests, and facts of the model."""
    return json_response(host.sleep.facts.properties if host.sleep.is_asleep else properties(host))


async def post_props(request: Request, host: ModelHost) -> Response:
    """Accept a change of properties; none can be changed."""
    if not host.settings.has_props:
        raise not_supported("This server does not support changing global properties. Start it with `--props`")
    return json_response({"success": True})


async def get_slots(request: Request, host: ModelHost) -> Response:
    """The state of each slot; with `fail_on_no_slot` 503 if all are busy."""
    if not host.settings.has_slots:
        raise not_supported("This server does not support slots endpoint. Start it with `--slots`")
    slots = await host.ask_engine(lambda: slot_list(host))
    if request.query_params.get("fail_on_no_slot") and all(slot["is_processing"] for slot in slots):
        raise RequestError(ErrorKind.UNAVAILABLE, "no slot available")
    return json_response(slots)


async def get_metrics(request: Request, host: ModelHost) -> Response:
    """Counters in Prometheus' text form."""
    if not host.settings.has_metrics:
        raise not_supported("This server does not support metrics endpoint. Start it with `--metrics`")
    headers = {"Process-Start-Time-Unix": str(int(host.started_at))}
    metrics = await host.ask_engine(host.metrics)
    return Response(host.metrics_text.write(metrics), headers=headers, media_type=METRICS_TYPE)


ENDPOINTS = (
    Endpoint("GET", ("/health", "/v1/health"), get_health, is_public=True, wakes=False),
    Endpoint("GET", ("/models", "/v1/models"), get_models, wakes=False),
    Endpoint("GET", ("/props",), get_props, wakes=False),
    Endpoint("POST", ("/props",), post_props),
    Endpoint("GET", ("/slots",), get_slots),
    Endpoint("GET", ("/metrics",), get_metrics, wakes=False),
)
