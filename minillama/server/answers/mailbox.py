"""News from the engine's thread to the event loop; one wake-up for each step."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from minillama.engine.batching.batch_stream import BatchStream

MOST_UNREAD = 65_536  # reports that a slow reader may leave unread
MOST_SNAPSHOTS = 4096

Snapshots = deque[tuple[int, float]]


class Mailbox:
    """The streams of one event loop that have news.

    The first news of a step wakes the loop; further ones are only appended until the loop has looked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed: deque[Reader] = deque()
        self._is_woken = False

    def post(self, reader: "Reader") -> None:
        """On the engine's thread: there is news for a reader."""
        self._changed.append(reader)
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed: the server has ended
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # before the look: a later post wakes the loop again
        while self._changed:
            self._changed.popleft().event.set()


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


def current_mailbox() -> Mailbox:
    """The mailbox of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _mailboxes:
        _mailboxes[loop] = Mailbox(loop)
    return _mailboxes[loop]


class Reader:
    """The reader of one request: waits for news of its streams."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.event = asyncio.Event()
        self._snapshots: dict[int, Snapshots] = {}  # by the number of the stream
        self._read: dict[int, int] = {}  # tokens of the last snapshot
        self._mailbox = mailbox
        self._unread = 0

    def on_change(self, stream: "BatchStream") -> None:
        """On the engine's thread: a stream has news.

        A reader that has left too much unread loses its streams.
        """
        if stream.slot is not None and self._read.get(stream.number) != stream.read_tokens:
            self._read[stream.number] = stream.read_tokens
            self.snapshots_of(stream).append((stream.read_tokens, time.perf_counter()))
        self._unread += 1
        if self._unread > MOST_UNREAD:
            stream.cancel()
        self._mailbox.post(self)

    def snapshots_of(self, stream: "BatchStream") -> Snapshots:
        """Counts of the prompt's tokens that were read, with the time of each report."""
        return self._snapshots.setdefault(stream.number, deque(maxlen=MOST_SNAPSHOTS))

    async def wait(self, seconds: float | None) -> bool:
        """Wait for news; False if none came in time."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        self.event.clear()
        self._unread = 0
        return True
