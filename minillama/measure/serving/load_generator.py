"""Send requests to a server, in a closed or an open loop, and record times.

Closed loop: N clients, each sends its next request when it has its answer. Open loop: requests arrive at a rate,
however slow the server is; only an open loop shows a server that cannot follow.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from minillama.errors import ResourceError
from minillama.measure.serving.event_stream import AnswerError, post_events
from minillama.measure.serving.server_apis import COMPLETIONS, ServerApi
from minillama.measure.serving.workload import PlannedRequest, Workload

WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Server:
    """A server under test."""

    url: str
    label: str = "server"
    api: ServerApi = COMPLETIONS
    model: str = ""
    api_key: str = ""
    strict: bool = False  # send only OpenAI's own fields
    timeout: float = 600.0  # seconds for a whole answer


@dataclass
class Outcome:
    """The course of one request; times in seconds, `sent` on the clock of `time.perf_counter`."""

    sent: float
    first_text: float | None = None  # from sending to the first text
    gaps: list[float] = field(default_factory=list)  # between two pieces of text
    total: float = 0.0  # from sending to the last byte
    tokens: int = 0  # as the server counts them; otherwise the pieces of text
    prompt_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None


Send = Callable[[PlannedRequest], Awaitable[Outcome]]


@dataclass(frozen=True)
class ClosedLoop:
    """A number of clients, each with one request at a time."""

    clients: int
    rate: None = None

    def __str__(self) -> str:
        return f"{self.clients} clients"

    async def run(self, requests: Sequence[PlannedRequest], send: Send) -> list[Outcome]:
        waiting: Iterator[PlannedRequest] = iter(requests)
        found: list[Outcome] = []

        async def client() -> None:
            for request in waiting:
                found.append(await send(request))

        await asyncio.gather(*(client() for _ in range(self.clients)))
        return found


@dataclass(frozen=True)
class OpenLoop:
    """Poisson arrivals, `rate` requests per second on average."""

    rate: float

    def __str__(self) -> str:
        return f"{self.rate:g}/s"

    async def run(self, requests: Sequence[PlannedRequest], send: Send) -> list[Outcome]:
        started = time.perf_counter()

        async def arrive(request: PlannedRequest) -> Outcome:
            await asyncio.sleep(request.at - (time.perf_counter() - started))
            return await send(request)

        return list(await asyncio.gather(*map(arrive, requests)))


Load = ClosedLoop | OpenLoop


async def send_request(server: Server, request: PlannedRequest, workload: Workload) -> Outcome:
    """Send one request and follow its stream; a failure is the `error` of the outcome."""
    body = server.api.request_body(request, workload, server.model, server.strict)
    outcome = Outcome(time.perf_counter())
    try:
        async with asyncio.timeout(server.timeout):
            await _follow(server, body, outcome)
    except TimeoutError:
        outcome.error = f"no answer in {server.timeout:g} s"
    except AnswerError as error:
        outcome.error = str(error)
    except OSError as error:
        outcome.error = f"cannot reach {server.url}: {error.strerror or error}"
    outcome.total = time.perf_counter() - outcome.sent
    return outcome


async def _follow(server: Server, body: dict[str, object], outcome: Outcome) -> None:
    before, last = outcome.sent, False
    async for event in post_events(server.url.rstrip("/") + server.api.path, body, server.api_key):
        content = server.api.read(event.data)
        if content.text:
            if outcome.first_text is None:
                outcome.first_text = event.arrived - outcome.sent
            else:
                outcome.gaps.append(event.arrived - before)
            before = event.arrived
        for name in ("tokens", "prompt_tokens", "cached_tokens"):
            if (value := getattr(content, name)) is not None:
                setattr(outcome, name, value)
        last = last or content.last
    if not last:
        raise AnswerError("the stream ends without its last event")
    if outcome.first_text is not None:
        outcome.tokens = outcome.tokens or len(outcome.gaps) + 1


def run_load(
    server: Server,
    load: Load,
    requests: Sequence[PlannedRequest],
    workload: Workload,
    advance: Callable[[], object] = lambda: None,
) -> tuple[list[Outcome], float]:
    """Send all requests; return their outcomes, and the seconds of the whole run.

    advance: called after each answer.
    """

    async def send(request: PlannedRequest) -> Outcome:
        outcome = await send_request(server, request, workload)
        advance()
        return outcome

    started = time.perf_counter()
    outcomes = asyncio.run(load.run(requests, send))
    return outcomes, time.perf_counter() - started


def warm_up(server: Server, requests: Sequence[PlannedRequest], workload: Workload) -> None:
    """Send a few short requests first; raises ResourceError with the reason if one fails."""
    for request in requests:
        short = PlannedRequest(request.prompt, min(WARM_UP_TOKENS, request.max_tokens), request.seed)
        outcome = asyncio.run(send_request(server, short, workload))
        if outcome.error is not None:
            raise ResourceError(f"{server.label}: {outcome.error}")
