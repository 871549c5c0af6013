"""Many rough clients on one server, for minutes: `python -m tests.soak --minutes 30 --clients 64`.

Clients read to the end, leave in the middle, read slowly, send nonsense, huge bodies and hostile templates. Each whole
answer must be that of the same request alone, and each part the beginning of it. Every refusal must be an error of
llama-server's form. At the end: no slot busy, no thread and little memory more than at the beginning.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
TEXT = "once upon a time little girl boy fox bird cat dog lived forest near river every day play friend red ball"
WORDS = TEXT.split()
START_SECONDS, END_SECONDS = 180, 5
MAX_GROWTH = 64 << 20  # bytes
NONSENSE: tuple[tuple[str, bytes], ...] = (
    ("/completion", b"{"),
    ("/completion", b"[]"),
    ("/completion", b'{"prompt": {"a": 1}}'),
    ("/completion", b'{"prompt": "a", "n_predict": "many"}'),
    ("/completion", b'{"prompt": [1, 99999999]}'),
    ("/completion", b'{"prompt": "a", "grammar": "root ::= ("}'),
    ("/completion", b'{"prompt": "a", "json_schema": {"type": "unheard of"}}'),
    ("/completion", b"[" * 100_000),
    ("/completion", b'{"prompt": "' + b"a" * (20 << 20) + b'"}'),
    ("/v1/chat/completions", b'{"messages": "hello"}'),
    ("/v1/chat/completions", b'{"messages": [{"role": 1}]}'),
    ("/tokenize", b'{"content": 1e999}'),
    ("/nowhere", b"{}"),
)


@dataclass
class Found:
    """Counts of what clients did, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Crowd:
    """Clients of one server, and the answers that are right."""

    def __init__(self, url: str, seed: int, kinds: int) -> None:
        chance = random.Random(seed)
        self.url, self.found, self._chance = url, Found(), chance
        self.bodies = [
            {
                "prompt": " ".join(chance.choices(WORDS, k=chance.randint(3, 60))),
                "n_predict": chance.choice((8, 24, 64)),
                "temperature": chance.choice((0.0, 0.8)),
                "top_k": chance.choice((0, 40)),
                "seed": number,
                "ignore_eos": True,
                "cache_prompt": chance.random() < 0.5,
            }
            for number in range(kinds)
        ]
        self.answers: list[str] = []

    async def learn(self) -> None:
        """Ask every request alone."""
        async with self._client() as client:
            for body in tqdm(self.bodies, desc="alone", unit="request"):
                answer = await client.post("/completion", json={**body, "cache_prompt": False})
                self.answers.append(answer.json()["content"])

    async def run(self, clients: int, seconds: float) -> None:
        """Let clients come and go for some seconds."""
        end = time.monotonic() + seconds
        with tqdm(total=int(seconds), desc="soak", unit="s") as bar:
            work = asyncio.gather(*(self._live(end) for _ in range(clients)))
            while not work.done():
                await asyncio.sleep(1)
                bar.update(1)
            await work

    async def _live(self, end: float) -> None:
        async with self._client() as client:
            while time.monotonic() < end:
                act = self._chance.choice((self._read, self._read, self._read, self._leave, self._slow, self._nonsense))
                try:
                    await act(client)
                except httpx.HTTPError as error:
                    self.found.problems.append(f"{act.__name__}: {type(error).__name__}: {error}")
                self.found.counts[act.__name__.strip("_")] += 1

    async def _read(self, client: httpx.AsyncClient) -> None:
        number = self._chance.randrange(len(self.bodies))
        answer = await client.post("/completion", json=self.bodies[number])
        if answer.status_code == 503:
            self.found.counts["queue was full"] += 1
            return
        if answer.status_code != 200 or answer.json()["content"] != self.answers[number]:
            self.found.problems.append(f"request {number}: {answer.status_code}: {answer.text[:300]}")

    async def _leave(self, client: httpx.AsyncClient) -> None:
        await self._stream(client, pieces=self._chance.randrange(6), pause=0.0)

    async def _slow(self, client: httpx.AsyncClient) -> None:
        await self._stream(client, pieces=10, pause=0.3)

    async def _stream(self, client: httpx.AsyncClient, pieces: int, pause: float) -> None:
        number, text = self._chance.randrange(len(self.bodies)), ""
        async with client.stream("POST", "/completion", json={**self.bodies[number], "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and "content" in (event := json.loads(line[6:])):
                    text += event["content"]
                    pieces -= 1
                    await asyncio.sleep(pause)
                if pieces <= 0:
                    break
        if not self.answers[number].startswith(text):
            self.found.problems.append(f"request {number}, its beginning: {text[:300]!r}")

    async def _nonsense(self, client: httpx.AsyncClient) -> None:
        path, body = self._chance.choice(NONSENSE)
        answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        with suppress(ValueError, KeyError, TypeError):
            if answer.status_code == answer.json()["error"]["code"] >= 400:
                return
        self.found.problems.append(f"{path} {body[:60]!r}: {answer.status_code} {answer.text[:200]}")

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=600)


def start(words: list[str], log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server and its URL, ready."""
    command = [sys.executable, "-m", "minillama", "serve", "--port", "0", *words]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    end = time.monotonic() + START_SECONDS
    while "listening on " not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server does not start:\n{log.read_text()}")
        time.sleep(0.2)
    return process, log.read_text().split("listening on ")[1].split()[0].rstrip(",")


def soak(minutes: float, clients: int, words: list[str], seed: int) -> Found:
    """Run it all; what was found."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(words, Path(folder) / "log")
        try:
            crowd = Crowd(url, seed, kinds=24)
            asyncio.run(crowd.learn())
            asyncio.run(crowd.run(clients, min(60.0, minutes * 20)))  # caches fill, rare programs are compiled
            before = psutil.Process(process.pid)
            memory, threads = before.memory_info().rss, before.num_threads()
            asyncio.run(crowd.run(clients, minutes * 60))
            time.sleep(2)
            grown, more = before.memory_info().rss - memory, before.num_threads() - threads
            print(f"memory {memory >> 20} MiB, grown by {grown / 2**20:.1f} MiB; threads {threads}, {more} more")
            busy = sum(slot["is_processing"] for slot in httpx.get(f"{url}/slots").json())
            limits = ((grown, "bytes more", MAX_GROWTH), (more, "threads more", 2), (busy, "busy slots", 0))
            for number, name, most in limits:
                if number > most:
                    crowd.found.problems.append(f"{number} {name}")
            process.send_signal(signal.SIGTERM)
            process.wait(END_SECONDS)
        finally:
            process.kill()
            process.wait()
        return crowd.found


def main() -> int:
    """Run; the status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("words", nargs="*", help="options of minillama serve, after --")
    args = parser.parse_args()
    words = args.words or ["-np", "8", "-c", "4096", "-m", str(ROOT / "data" / "storyteller-q8_0.gguf")]
    found = soak(args.minutes, args.clients, words, args.seed)
    print(", ".join(f"{count} {name}" for name, count in sorted(found.counts.items())))
    print(*found.problems[:20], f"{len(found.problems)} problems", sep="\n")
    return int(bool(found.problems))


if __name__ == "__main__":
    sys.exit(main())
