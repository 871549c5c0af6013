"""Clients of one server, and the answers that are right."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
from tqdm.auto import tqdm

from tests.soak.asked import Asked, EventReader, random_asked
from tests.soak.nonsense import HOSTILE, NONSENSE
from tests.soak.raw_client import RawClient

TIMEOUT = 600.0  # seconds without a byte, on a busy machine
HOSTILE_PAUSE = 10.0  # seconds; a template that is stopped holds up the others
SEVERAL = 8  # events of a stream that is left
LONG = 16  # streams that are open when the server ends


@dataclass
class Found:
    """Counts of what clients did, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds of a whole answer


class Crowd:
    """Random clients. url: may change, when the server starts again."""

    def __init__(self, url: str, seed: int, kinds: int) -> None:
        self.url, self.found, self._chance = url, Found(), random.Random(seed)
        self.asked = [random_asked(self._chance, number) for number in range(kinds)]
        self._long = [_long(random_asked(self._chance, kinds + number)) for number in range(min(kinds, LONG))]
        self._acts = (
            self._read, self._read, self._stream, self._stream, self._leave, self._give_up, self._reset, self._slow,
            self._trickle, self._nonsense, self._nonsense,
        )  # fmt: skip

    async def learn(self) -> None:
        """Ask every request alone."""
        async with self._client() as client:
            for asked in tqdm([*self.asked, *self._long], desc="alone", unit="request"):
                answer = await client.post(asked.path, json={**asked.body, "cache_prompt": False})
                if answer.status_code != 200:
                    raise RuntimeError(f"{asked}: {answer.text[:500]}")
                asked.answer = asked.text_of(answer.json())

    async def run(self, clients: int, seconds: float, watch: Callable[[], None] = lambda: None) -> None:
        """Let clients come and go for some seconds; `watch` is called every second."""
        end = time.monotonic() + seconds
        with tqdm(total=int(seconds), desc="soak", unit="s", mininterval=10) as bar:
            work = asyncio.gather(*(self._live(end) for _ in range(clients)), self._live_hostile(end))
            while not work.done():
                await asyncio.sleep(1)
                watch()
                bar.update(1)
            await work

    async def follow_long(self) -> list[EventReader]:
        """Long streams, read until they end, whatever ends them; each is checked."""
        return await asyncio.gather(*map(self._follow, self._long))

    async def _follow(self, asked: Asked) -> EventReader:
        events, client = EventReader(asked), RawClient(self.url)
        with suppress(ConnectionError):
            await client.open()
            await client.send(asked.path, {**asked.body, "stream": True})
            async for content in client.body():
                events.push(content)
        client.close()
        self._check(asked, events.text, events.is_whole)
        return events

    async def _live(self, end: float) -> None:
        async with self._client() as client:
            while time.monotonic() < end:
                act = self._chance.choice(self._acts)
                await self._do(act.__name__.strip("_"), act(client))

    async def _live_hostile(self, end: float) -> None:
        async with self._client() as client:
            while time.monotonic() < end:
                await self._do("hostile template", self._refused(client, "/v1/chat/completions", self._hostile()))
                await asyncio.sleep(HOSTILE_PAUSE)

    async def _do(self, name: str, act) -> None:
        try:
            await asyncio.wait_for(act, TIMEOUT)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            self.found.problems.append(f"{name}: {type(error).__name__}: {error}")
        self.found.counts[name] += 1

    async def _read(self, client: httpx.AsyncClient) -> None:
        asked, started = self._any(), time.monotonic()
        answer = await client.post(asked.path, json=asked.body)
        if answer.status_code != 200:
            self.found.problems.append(f"request {asked.number}: {answer.status_code}: {answer.text[:300]}")
            return
        self._check(asked, asked.text_of(answer.json()), is_whole=True)
        self.found.slowest = max(self.found.slowest, time.monotonic() - started)

    async def _stream(self, client: httpx.AsyncClient) -> None:
        """Read a stream to its end."""
        asked = self._any()
        events = EventReader(asked)
        async with client.stream("POST", asked.path, json=_streamed(asked)) as answer:
            async for content in answer.aiter_bytes():
                events.push(content)
        self._check_end(asked, events, answer.status_code)

    async def _leave(self, client: httpx.AsyncClient) -> None:
        """Close a stream in the middle."""
        asked, most = self._any(), self._chance.randrange(SEVERAL)
        events = EventReader(asked)
        async with client.stream("POST", asked.path, json=_streamed(asked)) as answer:
            async for content in answer.aiter_bytes():
                events.push(content)
                if events.pieces >= most:
                    break
        self._check(asked, events.text, events.is_whole)

    async def _give_up(self, client: httpx.AsyncClient) -> None:
        """Close a connection before the answer."""
        asked = self._any()
        with suppress(httpx.TimeoutException):
            await client.post(asked.path, json=asked.body, timeout=self._chance.random())

    async def _reset(self, _: httpx.AsyncClient) -> None:
        """Reset a connection in the middle of a stream, or of a body."""
        asked, most = self._any(), self._chance.randrange(SEVERAL)
        client, events = RawClient(self.url), EventReader(asked)
        await client.open()
        if self._chance.random() < 0.2:
            sending = client.send(asked.path, _streamed(asked), pieces=9, pause=0.05)
            with suppress(TimeoutError):
                await asyncio.wait_for(sending, 0.2)
        else:
            await client.send(asked.path, _streamed(asked))
            async for content in client.body():
                events.push(content)
                if events.pieces >= most:
                    break
        client.reset()
        self._check(asked, events.text, events.is_whole)

    async def _slow(self, _: httpx.AsyncClient) -> None:
        """Read a large stream to its end through a small buffer, with pauses."""
        asked = self._any()
        client, events = RawClient(self.url), EventReader(asked)
        await client.open()
        more = {"n_probs": 10} if asked.path == "/completion" else {}
        await client.send(asked.path, {**_streamed(asked), **more})
        async for content in client.body(size=1024, pause=0.03):
            events.push(content)
        client.close()
        self._check_end(asked, events, client.status)

    async def _trickle(self, _: httpx.AsyncClient) -> None:
        """Send a body in many small pieces."""
        asked = self._any()
        client, events = RawClient(self.url), EventReader(asked)
        await client.open()
        await client.send(asked.path, _streamed(asked), pieces=20, pause=0.1)
        async for content in client.body():
            events.push(content)
        client.close()
        self._check_end(asked, events, client.status)

    async def _nonsense(self, client: httpx.AsyncClient) -> None:
        await self._refused(client, *self._chance.choice(NONSENSE))

    async def _refused(self, client: httpx.AsyncClient, path: str, body: bytes) -> None:
        """The answer is an error of llama-server's form."""
        answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        with suppress(ValueError, KeyError, TypeError):
            error = answer.json()["error"]
            if answer.status_code == error["code"] >= 400 and 0 < len(error["message"]) < 600:
                return
        self.found.problems.append(f"{path} {body[:80]!r}: {answer.status_code} {answer.text[:200]}")

    def _check_end(self, asked: Asked, events: EventReader, status: int) -> None:
        if status != 200 or events.error or not events.is_whole:
            self.found.problems.append(f"request {asked.number}: {status}, whole: {events.is_whole}; {events.error}")
        self._check(asked, events.text, is_whole=True)

    def _check(self, asked: Asked, text: str, is_whole: bool) -> None:
        """A whole text is that of the lone run; a part is its beginning."""
        expected = asked.answer
        if text != expected if is_whole else not expected.startswith(text):
            self.found.problems.append(
                f"request {asked.number}, whole: {is_whole}: {text[:300]!r}, alone {expected[:300]!r}"
            )

    def _any(self) -> Asked:
        return self._chance.choice(self.asked)

    def _hostile(self) -> bytes:
        return self._chance.choice(HOSTILE)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT)


def _streamed(asked: Asked) -> dict[str, object]:
    return {**asked.body, "stream": True}


def _long(asked: Asked) -> Asked:
    asked.body["n_predict"] = 400
    return asked
