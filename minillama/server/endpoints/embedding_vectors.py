"""Embeddings, in OpenAI's form and in llama-server's own."""

import base64
from collections.abc import Mapping
from functools import partial

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from minillama.array_types import Float32
from minillama.engine.batching.batch_errors import ContextSizeError
from minillama.engine.evaluation.text_embeddings import file_pooling
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import ErrorKind, RequestError, invalid, json_response, not_supported
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object
from minillama.server.requests.embedding_input import EmbeddingRequest, read_embedding_request


async def post_embeddings(request: Request, host: ModelHost) -> Response:
    """One object for each input; without pooling, the embedding has a row for each token."""
    return await _answer(await read_object(request), host, is_openai=False)


async def post_openai_embeddings(request: Request, host: ModelHost) -> Response:
    """Embeddings in OpenAI's form, as numbers or in base64."""
    body = await read_object(request)
    return await _answer(body, host, is_openai="input" in body)


async def _answer(body: Mapping[str, object], host: ModelHost, *, is_openai: bool) -> Response:
    settings = host.settings.embeddings
    if not settings.is_on:
        raise not_supported("This server does not support embeddings. Start it with `--embeddings`")
    pooling = settings.pooling or file_pooling(host.llm.metadata)
    if is_openai and pooling == "none":
        raise invalid("Pooling type 'none' is not OAI compatible. Please use a different pooling type")
    most = host.llm.ctx_size
    read = partial(read_embedding_request, body, host.llm.tokenizer, settings.normalize, most)
    try:
        wanted = await host.in_thread(read)
        for ids in wanted.texts:
            if len(ids) > most:
                raise ContextSizeError(len(ids), most)
    except ContextSizeError as error:
        message = f"input ({error.count} tokens) is too large to process; the context has {most} tokens"
        raise RequestError(ErrorKind.SERVER, message) from None
    vectors = []
    for ids in wanted.texts:  # one turn of the engine for each, so that texts that are written do not wait for all
        embed = partial(host.llm.embed, [ids], pooling=pooling, normalize=wanted.normalize)
        vectors.append((await host.ask_engine(lambda embed=embed: host.engine.call(embed)))[0])
    if is_openai:
        return json_response(_openai(wanted, vectors, host.model_name))
    return json_response([{"index": i, "embedding": np.atleast_2d(v).tolist()} for i, v in enumerate(vectors)])


def _openai(wanted: EmbeddingRequest, vectors: list[Float32[np.ndarray, "D"]], model: str) -> dict[str, object]:
    count = sum(map(len, wanted.texts))
    return {
        "model": model,
        "object": "list",
        "usage": {"prompt_tokens": count, "total_tokens": count},
        "data": [_entry(place, vector, wanted.is_base64) for place, vector in enumerate(vectors)],
    }


def _entry(place: int, vector: Float32[np.ndarray, "D"], is_base64: bool) -> dict[str, object]:
    entry: dict[str, object] = {"index": place, "object": "embedding"}
    if is_base64:
        text = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return entry | {"embedding": text, "encoding_format": "base64"}
    return entry | {"embedding": vector.tolist()}


ENDPOINTS = (
    Endpoint("POST", ("/embedding", "/embeddings"), post_embeddings),
    Endpoint("POST", ("/v1/embeddings",), post_openai_embeddings),
)
