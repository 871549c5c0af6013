"""Answer a request for completions: submit them, then write JSON or server-sent events.

A client that closes its connection, or reads nothing for the timeout, cancels its completions.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minillama.engine.result import Piece
from minillama.errors import MinillamaError
from minillama.sampling.sampling_params import FIELDS
from minillama.server.answers.answer_format import AnswerFormat
from minillama.server.answers.follow import Mark, News, follow
from minillama.server.answers.generation import Generation, Progress
from minillama.server.answers.mailbox import Reader, current_mailbox
from minillama.server.http_errors import RequestError, as_request_error, error_response, json_response
from minillama.server.model_host import ModelHost
from minillama.server.requests.generation_request import GenerationRequest

PING = b":\n\n"
_EVENT_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


async def respond(
    request: Request, host: ModelHost, wanted: Sequence[GenerationRequest], form: AnswerFormat
) -> "Response | EventResponse":
    """The answer to a request with one or more prompts.

    Raises the error of a prompt that the engine refuses.
    """
    reader = Reader(current_mailbox())
    generations = await host.ask_engine(lambda: submit(host, wanted, reader))
    pings = wanted[0].number("sse_ping_interval", -1)
    news = _noted(host, follow(generations, reader, host.llm.batches.batch_size, pings if pings > 0 else None))
    if wanted[0].is_on("stream"):
        return EventResponse(generations, news, form, host.settings.timeout)
    return await collect(request, generations, news, form)


def submit(host: ModelHost, wanted: Sequence[GenerationRequest], reader: Reader) -> list[Generation]:
    """Hand all completions to the engine, or none of them."""
    generations: list[Generation] = []
    try:
        for request in wanted:
            for number in range(request.completions):
                # llama-server gives completion number i the seed plus i
                stream = host.engine.submit(list(request.ids), **submit_options(request, host, number, reader))
                generations.append(Generation(request, len(generations), stream))
    except BaseException:
        cancel(generations)
        raise
    return generations


def submit_options(request: GenerationRequest, host: ModelHost, number: int, reader: Reader) -> dict[str, object]:
    """The options of `BatchEngine.submit` for completion `number` of a request."""
    sampling = {name: getattr(request.sampling, name) for name in FIELDS}
    if request.sampling.seed >= 0:
        sampling["seed"] = (request.sampling.seed + number) % 2**32
    limit = request.number("t_max_predict_ms", -1)
    return {
        **sampling,
        "n": request.most_tokens,
        "stop": request.stop,
        "keep": request.number("n_keep"),
        "context_shift": host.settings.context_shift,
        "ignore_eos": request.is_on("ignore_eos"),
        "draft_max": request.draft.most,
        "draft_min": request.draft.least,
        "draft_p_min": request.draft.p_min,
        "grammar": request.constraint.grammar,
        "thinking": request.constraint.thinking,
        "cache_prompt": request.is_on("cache_prompt"),
        "slot": request.slot if request.completions == 1 else None,
        "splitter": request.chat.splitter(),
        "n_probs": request.number("n_probs"),
        "post_sampling_probs": request.is_on("post_sampling_probs"),
        "time_limit": limit / 1000 if limit > 0 else None,
        "on_change": reader.on_change,
    }


def cancel(generations: Sequence[Generation]) -> None:
    """End completions without a reader."""
    for generation in generations:
        generation.stream.cancel()


async def collect(
    request: Request, generations: Sequence[Generation], news: AsyncIterator[News], form: AnswerFormat
) -> Response:
    """The JSON answer after all completions have ended; a closed connection cancels them."""
    finished = asyncio.ensure_future(_drain(news))
    closed = asyncio.ensure_future(_wait_for_close(request.receive))
    try:
        await asyncio.wait({finished, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            return Response(status_code=499)  # the connection is closed
        finished.result()
    finally:
        for task in (finished, closed):
            task.cancel()
        cancel(generations)
    return json_response(form.whole(generations))


class EventResponse:
    """An ASGI application that writes the events of a stream.

    An error before the first event is an ordinary answer with its status, as in llama-server.
    """

    def __init__(
        self, generations: Sequence[Generation], news: AsyncIterator[News], form: AnswerFormat, timeout: float
    ) -> None:
        self._generations, self._news, self._form, self._timeout = generations, news, form, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write all events, or stop when the connection is closed."""
        writing = asyncio.ensure_future(self._write(scope, receive, send))
        closed = asyncio.ensure_future(_wait_for_close(receive))
        try:
            await asyncio.wait({writing, closed}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            for task in (writing, closed):
                task.cancel()
            cancel(self._generations)
            with suppress(asyncio.CancelledError):
                await writing

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        try:
            async for news in self._news:
                events = self._events(news)
                if not has_begun:
                    has_begun = True
                    await self._send(
                        send, {"type": "http.response.start", "status": 200, "headers": list(_EVENT_HEADERS)}
                    )
                if events:
                    await self._send(send, {"type": "http.response.body", "body": events, "more_body": True})
            await self._send(send, {"type": "http.response.body", "body": self._form.end_of_stream})
        except (MinillamaError, RequestError) as error:
            if not has_begun:
                await error_response(error)(scope, receive, send)
                return
            body = self._form.error(as_request_error(error).body)
            await self._send(send, {"type": "http.response.body", "body": body})

    def _events(self, news: News) -> bytes:
        """The bytes of one change."""
        generation, change = news
        form = self._form
        if change is Mark.PAUSE:
            return PING
        if isinstance(change, Piece):
            events = form.piece(generation, change)
        elif isinstance(change, Progress):
            events = form.progress(generation) if generation.request.is_on("return_progress") else ()
        else:
            events = form.end(generation)
        return b"".join(form.encode(event) for event in events)

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        """Send, or give up a client that reads nothing for the timeout."""
        async with asyncio.timeout(self._timeout if self._timeout > 0 else None):
            await send(message)


async def _noted(host: ModelHost, news: AsyncIterator[News]) -> AsyncIterator[News]:
    """The news, while the host notes the last completion of each slot."""
    async for each in news:
        if isinstance(each.change, Progress) and each.generation.stream.slot is not None:
            host.latest[each.generation.stream.slot] = each.generation
        yield each


async def _drain(news: AsyncIterator[News]) -> None:
    async for _ in news:
        pass


async def _wait_for_close(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
