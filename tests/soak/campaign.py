"""The whole soak: warm up, load, and the ends in the middle of streams."""

import asyncio
import signal
import tempfile
import time
from pathlib import Path

from tests.soak.crowd import Crowd, Found
from tests.soak.nonsense import TEMPLATE
from tests.soak.server_process import ServerProcess, Use

END_SECONDS = 30.0  # of a server that is ended, on a busy machine
MOST_GROWTH = 64 << 20  # bytes
MOST_MEMORY = 3 << 30  # bytes of the server, at which a soak stops
MOST_MORE = {"threads": 4, "descriptors": 4, "children": 0, "busy_slots": 0}
SAMPLE_SECONDS = 10.0


def soak(minutes: float, clients: int, words: list[str], seed: int, kinds: int = 32) -> Found:
    """Run it all; what was found. kinds: of requests; each is asked alone first."""
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.jinja"
        template.write_text(TEMPLATE)
        words = [*words, "--chat-template-file", str(template)]
        server = ServerProcess(words, Path(folder) / "log")
        try:
            crowd = Crowd(server.url, seed, kinds)
            asyncio.run(crowd.learn())
            memory = _Samples(server)
            asyncio.run(crowd.run(clients, min(120.0, minutes * 20), memory.watch))  # caches fill
            before = server.use()
            asyncio.run(crowd.run(clients, minutes * 60, memory.watch))
            check_growth(crowd.found, before, server.use(), memory.values)
            check_end(crowd, server, signal.SIGTERM)
            server = ServerProcess(words, Path(folder) / "log2")
            crowd.url = server.url
            asyncio.run(crowd.run(2, 2.0))
            check_end(crowd, server, signal.SIGKILL)
        finally:
            server.kill()
        for name in ("log", "log2"):
            if "Traceback" in (log := (Path(folder) / name).read_text(errors="replace")):
                crowd.found.problems.append(f"a traceback of the server: {log[-2000:]}")
        return crowd.found


class _Samples:
    """The server's memory, every some seconds."""

    def __init__(self, server: ServerProcess) -> None:
        self.values: list[int] = []
        self._server, self._next = server, time.monotonic()

    def watch(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAMPLE_SECONDS
            self.values.append(self._server.memory)
            if self.values[-1] > MOST_MEMORY:
                raise RuntimeError(f"the server has {self.values[-1] >> 20} MiB of memory, the soak is stopped")


def check_growth(found: Found, before: Use, after: Use, memory: list[int]) -> None:
    """Print and compare what the server uses before and after."""
    print(f"before {before}\nafter  {after}")
    step = max(1, len(memory) // 12)
    print("memory in MiB:", *(value >> 20 for value in memory[::step]))
    for name, most in (("memory", MOST_GROWTH), *MOST_MORE.items()):
        old = 0 if name == "busy_slots" else getattr(before, name)
        if getattr(after, name) - old > most:
            found.problems.append(f"{name} grew from {old} to {getattr(after, name)}")


def check_end(crowd: Crowd, server: ServerProcess, number: signal.Signals) -> None:
    """End the server while streams are read: in time, and no stream that is cut looks whole."""

    async def watched() -> None:
        reading = asyncio.create_task(crowd.follow_long())
        await asyncio.sleep(1.5)
        seconds, left = await asyncio.to_thread(server.end, number, END_SECONDS)
        streams = await reading
        cut = [events for events in streams if not events.is_whole]
        print(f"{number.name}: ended after {seconds:.1f} s; {len(cut)} of {len(streams)} streams cut; {left} left")
        if left:
            crowd.found.problems.append(f"{number.name}: {left} processes are left")

    asyncio.run(watched())
