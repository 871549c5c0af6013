"""Endpoints of llama-server that minillama does not have: 501, with the reason."""

from starlette.requests import Request
from starlette.responses import Response

from minillama.server.endpoints.endpoint import Endpoint, Handler
from minillama.server.http_errors import not_supported
from minillama.server.model_host import ModelHost

ROUTER = "router mode is not supported; one server has one model, given with -m or -hf"
TOOLS = "built-in tools and MCP servers are not supported; run tools in the client"
AUDIO = "audio input is not supported; only text is"
RERANK = "This server does not support reranking"
INFILL = "Infill is not supported; write the prompt with the model's own infill tokens, and use /completion"
LORA = "LoRA adapters are not supported; merge the adapter into the GGUF file"
RESUMED = "resumable streams are not supported; send the request again"
CONTROL = "control of a running answer is not supported; close the connection to end it"


def refuse(reason: str) -> Handler:
    """A handler that refuses every request."""

    async def handler(request: Request, host: ModelHost) -> Response:
        raise not_supported(reason)

    return handler


_ROWS = (
    ("POST", ROUTER, ("/models", "/models/load", "/models/unload")),
    ("DELETE", ROUTER, ("/models",)),
    ("GET", ROUTER, ("/models/sse",)),
    ("GET", TOOLS, ("/tools", "/cors-proxy")),
    ("POST", TOOLS, ("/tools", "/cors-proxy")),
    ("POST", AUDIO, ("/audio/transcriptions", "/v1/audio/transcriptions")),
    ("POST", RERANK, ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")),
    ("POST", INFILL, ("/infill",)),
    ("GET", LORA, ("/lora-adapters",)),
    ("POST", LORA, ("/lora-adapters",)),
    ("GET", RESUMED, ("/v1/stream",)),
    ("DELETE", RESUMED, ("/v1/stream",)),
    ("POST", RESUMED, ("/v1/streams/lookup",)),
    ("POST", CONTROL, ("/v1/chat/completions/control",)),
)
ENDPOINTS = tuple(Endpoint(method, paths, refuse(reason)) for method, reason, paths in _ROWS)
