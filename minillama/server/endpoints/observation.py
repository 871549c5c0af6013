"""Endpoints to look inside: steps of the scheduler, activations; off by default."""

import threading
from collections.abc import Iterator, Mapping

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from minillama.engine.batching.counters import TurnRecord
from minillama.server.endpoints.endpoint import Endpoint
from minillama.server.http_errors import invalid, json_response, not_supported
from minillama.server.model_host import ModelHost
from minillama.server.request_body import read_object
from minillama.server.requests.prompt_input import read_prompt

MOST_TRACED_TOKENS = 256  # each length is compiled, and attention maps have its square
_one_trace = threading.Lock()


async def get_schedule(request: Request, host: ModelHost) -> Response:
    """The last steps, the oldest first: texts, chunk, milliseconds, waiting requests."""
    if not host.settings.has_schedule:
        raise not_supported("This server does not show its schedule. Start it with `--schedule`")
    turns = await host.ask_engine(host.engine.schedule)
    return json_response({"slots": host.engine.slots, "steps": [_step(turn) for turn in turns]})


async def post_trace(request: Request, host: ModelHost) -> Response:
    """Summaries of all named activations of a prompt, under llama.cpp's names."""
    if not host.settings.has_trace:
        raise not_supported("This server shows no activations. Start it with `--trace`")
    body = await read_object(request)
    if "prompt" not in body:
        raise invalid("key 'prompt' not found")

    def run() -> dict[str, object]:
        tokenizer = host.llm.tokenizer
        ids = read_prompt(body["prompt"], tokenizer, host.llm.ctx_size)
        if len(ids) > MOST_TRACED_TOKENS:
            raise invalid(f"the prompt has {len(ids)} tokens, and at most {MOST_TRACED_TOKENS} are traced")
        with _one_trace:
            found = host.llm.trace(ids)
        pieces = [tokenizer.piece(token, special=True).decode("utf-8", "replace") for token in ids]
        tokens = [{"id": token, "piece": piece} for token, piece in zip(ids, pieces, strict=True)]
        return {"tokens": tokens, "activations": list(summaries(found))}

    return json_response(await host.in_thread(run))


def summaries(found: Mapping[str, np.ndarray]) -> Iterator[dict[str, object]]:
    """Name, shape and figures of each array, over its finite values."""
    for name, value in found.items():
        finite = value[np.isfinite(value)].astype(np.float64)
        figures = {"mean": 0.0, "std": 0.0, "min": 0.0, "max": 0.0, "sum": 0.0}
        if finite.size:
            figures = {each: float(getattr(finite, each)()) for each in figures}
        yield {"name": name, "shape": list(value.shape), **figures, "not_finite": value.size - finite.size}


def _step(turn: TurnRecord) -> dict[str, object]:
    chunk = turn.chunk
    return {
        "number": turn.number,
        "began_s": turn.began,
        "ms": 1e3 * turn.seconds,
        "rows": [{"slot": slot, "request": request} for slot, request in turn.rows],
        "chunk": None
        if chunk is None
        else {"slot": chunk.slot, "request": chunk.request, "start": chunk.start, "tokens": chunk.tokens},
        "waiting": turn.waiting,
        "notes": list(turn.notes),
    }


ENDPOINTS = (
    Endpoint("GET", ("/schedule",), get_schedule),
    Endpoint("POST", ("/trace",), post_trace),
)
