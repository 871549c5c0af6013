"""Anthropic's messages: `/v1/messages` and its count of tokens."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from minillama.server.answers.anthropic_format import AnthropicFormat
from minillama.server.answers.respond import respond
from minillama.server.endpoints.completions import read_chat_request
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import json_response
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object
from minillama.server.requests.anthropic_input import anthropic_to_chat


async def post_messages(request: Request, host: ModelHost) -> ASGIApp:
    """Answer a conversation."""
    wanted = await read_chat_request(anthropic_to_chat(await read_object(request)), host)
    return await respond(request, host, [wanted], AnthropicFormat(host.model_name))


async def post_count_tokens(request: Request, host: ModelHost) -> Response:
    """The number of tokens of a conversation."""
    wanted = await read_chat_request(anthropic_to_chat(await read_object(request)), host, is_count=True)
    return json_response({"input_tokens": len(wanted.ids)})


ENDPOINTS = (
    Endpoint("POST", ("/v1/messages",), post_messages),
    Endpoint("POST", ("/v1/messages/count_tokens",), post_count_tokens),
)
