"""Endpoints that write text: llama-server's `/completion`, OpenAI's completions and chat."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp

from minillama.server.answers.native_format import NativeFormat
from minillama.server.answers.openai_format import OpenAIChatFormat, OpenAITextFormat
from minillama.server.answers.respond import respond
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import invalid
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object
from minillama.server.requests.chat_input import read_chat
from minillama.server.requests.generation_request import GenerationRequest, read_request
from minillama.server.requests.prompt_input import check_length, in_turn, read_prompts


async def post_completion(request: Request, host: ModelHost) -> ASGIApp:
    """Continue one or several prompts, in llama-server's own form."""
    wanted = await read_completions(await read_object(request), host)
    return await respond(request, host, wanted, NativeFormat(host.llm.tokenizer, host.model_name))


async def post_openai_completion(request: Request, host: ModelHost) -> ASGIApp:
    """Continue one or several prompts, in OpenAI's form."""
    wanted = await read_completions(await read_object(request), host)
    return await respond(request, host, wanted, OpenAITextFormat(host.llm.tokenizer, host.model_name))


async def post_chat_completion(request: Request, host: ModelHost) -> ASGIApp:
    """Answer a conversation, in OpenAI's form."""
    wanted = await read_chat_request(await read_object(request), host)
    return await respond(request, host, [wanted], OpenAIChatFormat(host.llm.tokenizer, host.model_name))


async def read_completions(body: Mapping[str, object], host: ModelHost) -> list[GenerationRequest]:
    """Check a request for completions, and tokenise its prompts on another thread."""
    if "prompt" not in body:
        raise invalid("key 'prompt' not found")

    def read() -> list[GenerationRequest]:
        prompts = read_prompts(body["prompt"], host.llm.tokenizer, host.engine.ctx_size)
        first = read_request(body, prompts[0], host.llm, host.settings)
        return [first.with_ids(ids) for ids in prompts]

    return await host.in_thread(read)


async def read_chat_request(
    body: Mapping[str, object], host: ModelHost, *, is_count: bool = False
) -> GenerationRequest:
    """Check a chat request, and render its messages on another thread.

    is_count: only its tokens are counted, so that it may be longer than the context.
    """

    def read() -> GenerationRequest:
        chat = read_chat(body, host.template, host.settings.chat)
        if not is_count:
            check_length(chat.prompt, host.llm.tokenizer, host.engine.ctx_size)
        ids = in_turn(host.llm.tokenizer.encode_rendered, chat.prompt)
        return read_request(chat.fields, tuple(ids), host.llm, host.settings, chat.format, chat.shape)

    return await host.in_thread(read)


ENDPOINTS = (
    Endpoint("POST", ("/completion", "/completions"), post_completion),
    Endpoint("POST", ("/v1/completions",), post_openai_completion),
    Endpoint("POST", ("/chat/completions", "/v1/chat/completions"), post_chat_completion),
)
