"""Release the model after seconds without a request, and load it for the next."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from anyio import to_thread

logger = logging.getLogger("minillama")

LOOK_SECONDS = 0.1  # between two looks


@dataclass(frozen=True)
class SleepFacts:
    """Answers about the model, while it is not loaded."""

    models: dict[str, object] = field(default_factory=dict)
    properties: dict[str, object] = field(default_factory=dict)


class IdleSleep:
    """Whether the model is loaded, and the requests that use it.

    idle_seconds: negative for never. unload, load: called one at a time. describe: gives facts of the loaded model.
    """

    def __init__(
        self,
        idle_seconds: float,
        unload: Callable[[], None],
        load: Callable[[], None],
        describe: Callable[[], SleepFacts] = SleepFacts,
    ) -> None:
        self.is_asleep = False
        self.facts = SleepFacts()
        self.describe = describe
        self._idle_seconds, self._unload, self._load = idle_seconds, unload, load
        self._users, self._last_used = 0, time.monotonic()
        self._lock = threading.Lock()  # of the change between awake and asleep
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to look for idle times, on a thread; nothing without `idle_seconds`."""
        self._last_used = time.monotonic()
        if self._idle_seconds >= 0:
            threading.Thread(target=self._watch, name="idle-sleep", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()

    @asynccontextmanager
    async def awake(self) -> AsyncIterator[None]:
        """Use the model: it stays loaded inside, and is loaded first where it sleeps."""
        self._users += 1  # before the look: `fall_asleep` looks at it after it has set `is_asleep`
        try:
            if self.is_asleep:
                await asyncio.shield(asyncio.ensure_future(to_thread.run_sync(self.wake)))
            yield
        finally:
            self._users -= 1
            self._last_used = time.monotonic()

    def wake(self) -> None:
        """Load the model, unless another request has."""
        with self._lock:
            if self.is_asleep:
                logger.info("waking up")
                self._load()
                self.is_asleep = False

    def fall_asleep(self) -> bool:
        """Release the model; False if a request uses it."""
        with self._lock:
            if self.is_asleep:
                return True
            found = self.describe()
            self.facts = replace(found, properties={**found.properties, "is_sleeping": True})
            self.is_asleep = True
            if self._users:
                self.is_asleep = False
                return False
            logger.info("sleeping")
            self._unload()
            return True

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            idle = time.monotonic() - self._last_used
            if not self._users and not self.is_asleep and idle >= self._idle_seconds:
                self.fall_asleep()
