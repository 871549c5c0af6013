"""A small server of completions on a thread of its own; its answers and its times are known."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class FakeServer:
    """Answers each request after `first` seconds with words, `gap` seconds apart."""

    first: float = 0.0
    gap: float = 0.0
    slots: int = 64  # requests that it works on at a time
    fail_at: frozenset[int] = frozenset()  # numbers of requests that get 503
    cut_at: frozenset[int] = frozenset()  # numbers of requests whose stream breaks off
    bodies: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most_at_a_time: int = 0
    url: str = ""
    _working: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        number = len(self.bodies)
        self.bodies.append(body)
        self.paths.append(head.split()[1])
        self.keys.append(headers.get("authorization", ""))
        if number in self.fail_at:
            text = json.dumps({"error": {"code": 503, "message": "too many", "type": "unavailable_error"}})
            writer.write(f"HTTP/1.1 503 Busy\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            await writer.drain()
            return
        self._working += 1
        self.most_at_a_time = max(self.most_at_a_time, self._working)
        async with self._slots:
            await self._stream(writer, body, number)
        self._working -= 1

    async def _stream(self, writer: asyncio.StreamWriter, body: dict, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        native = "n_predict" in body
        count = body["n_predict"] if native else body["max_tokens"]
        for at in range(count):
            await asyncio.sleep(self.gap if at else self.first)
            if at == 1 and number in self.cut_at:
                return
            await self._event(writer, self._word(body, at, native))
        usage = {"prompt_tokens": 10, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": 4}}
        if native:
            last = {"content": "", "stop": True, "tokens_predicted": count, "tokens_evaluated": 10}
            await self._event(writer, json.dumps({**last, "timings": {"cache_n": 4}}))
        else:
            await self._event(writer, json.dumps({"choices": [], "usage": usage}))
            await self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _word(self, body: dict, at: int, native: bool) -> str:
        if native:
            return json.dumps({"content": f" w{at}", "stop": False})
        if "messages" in body:
            return json.dumps({"choices": [{"delta": {"content": f" w{at}"}}]})
        return json.dumps({"choices": [{"text": f" w{at}"}]})

    async def _event(self, writer: asyncio.StreamWriter, data: str) -> None:
        event = f"data: {data}\n\n:\n\n".encode()  # an event, and a ping
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()

    @contextmanager
    def running(self) -> Iterator["FakeServer"]:
        """Serve on a free port until the end of the block."""
        loop, ready = asyncio.new_event_loop(), threading.Event()

        async def serve() -> None:
            self._slots = asyncio.Semaphore(self.slots)
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()
            await self._stop.wait()
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(self._stop.set)
            thread.join()
            loop.close()
