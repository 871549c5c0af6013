"""Endpoints that change text without the model: tokens, templates, counts."""

from starlette.requests import Request
from starlette.responses import Response

from minillama.server.answers.native_format import prompt_text
from minillama.server.endpoints.completions import read_chat_request
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import json_response
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object
from minillama.server.requests.chat_input import read_chat
from minillama.server.requests.fields import read_flag
from minillama.server.requests.prompt_input import encode_mixed, read_tokens
from minillama.tokenizer import Tokenizer


async def post_tokenize(request: Request, host: ModelHost) -> Response:
    """Token ids of a text, with their pieces if asked for."""
    body, tokenizer = await read_object(request), host.llm.tokenizer
    content = body.get("content")
    add_special = read_flag(body, "add_special", False)
    parse_special = read_flag(body, "parse_special", True)
    if content is None:
        return json_response({"tokens": []})
    ids = await host.in_thread(
        lambda: encode_mixed(content, tokenizer, add_special=add_special, parse_special=parse_special)
    )
    if not read_flag(body, "with_pieces", False):
        return json_response({"tokens": ids})
    return json_response({"tokens": [{"id": token, "piece": _piece(token, tokenizer)} for token in ids]})


async def post_detokenize(request: Request, host: ModelHost) -> Response:
    """The text of token ids, control tokens included."""
    body, tokenizer = await read_object(request), host.llm.tokenizer
    ids = read_tokens(body.get("tokens", []), tokenizer.size)
    return json_response({"content": prompt_text(ids, tokenizer)})


async def post_apply_template(request: Request, host: ModelHost) -> Response:
    """The prompt that messages become."""
    body = await read_object(request)
    chat = await host.in_thread(lambda: read_chat(body, host.template, host.settings.chat))
    tokenizer = host.llm.tokenizer
    bos = tokenizer.tokens[tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else ""
    return json_response({"prompt": chat.prompt.removeprefix(bos)})  # tokenising the prompt adds BOS


async def post_input_tokens(request: Request, host: ModelHost) -> Response:
    """The number of tokens of a chat request's prompt."""
    wanted = await read_chat_request(await read_object(request), host, is_count=True)
    return json_response({"object": "response.input_tokens", "input_tokens": len(wanted.ids)})


def _piece(token: int, tokenizer: Tokenizer) -> str | list[int]:
    """The text of a token; its bytes where they are no text."""
    piece = tokenizer.piece(token, special=True)
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


ENDPOINTS = (
    Endpoint("POST", ("/tokenize",), post_tokenize),
    Endpoint("POST", ("/detokenize",), post_detokenize),
    Endpoint("POST", ("/apply-template",), post_apply_template),
    Endpoint("POST", ("/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"), post_input_tokens),
)
