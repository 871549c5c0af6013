"""OpenAI's responses: `/v1/responses` and its count of tokens."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from minillama.server.answers.respond import respond
from minillama.server.answers.responses_format import ResponsesFormat
from minillama.server.endpoints.completions import read_chat_request
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import json_response
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object
from minillama.server.requests.responses_input import responses_to_chat


async def post_responses(request: Request, host: ModelHost) -> ASGIApp:
    """Answer a conversation."""
    wanted = await read_chat_request(responses_to_chat(await read_object(request)), host)
    return await respond(request, host, [wanted], ResponsesFormat(host.model_name))


async def post_input_tokens(request: Request, host: ModelHost) -> Response:
    """The number of tokens of a conversation."""
    wanted = await read_chat_request(responses_to_chat(await read_object(request)), host, is_count=True)
    return json_response({"object": "response.input_tokens", "input_tokens": len(wanted.ids)})


ENDPOINTS = (
    Endpoint("POST", ("/responses", "/v1/responses"), post_responses),
    Endpoint("POST", ("/responses/input_tokens", "/v1/responses/input_tokens"), post_input_tokens),
)
