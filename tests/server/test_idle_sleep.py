"""Sleep: the model is released only while nobody uses it, and every request finds it loaded."""

import asyncio
import time

import pytest

from minillama.server.idle_sleep import IdleSleep, SleepFacts


class Model:
    """Counts loads; an unloaded model cannot be used."""

    def __init__(self) -> None:
        self.is_loaded, self.loads = True, 1

    def load(self) -> None:
        assert not self.is_loaded
        time.sleep(0.002)
        self.is_loaded, self.loads = True, self.loads + 1

    def unload(self) -> None:
        assert self.is_loaded
        self.is_loaded = False


def sleeper(model: Model, seconds: float = -1) -> IdleSleep:
    return IdleSleep(seconds, model.unload, model.load, lambda: SleepFacts({"id": "m"}, {"is_sleeping": False}))


def test_a_used_model_does_not_sleep() -> None:
    model = Model()
    sleep = sleeper(model)

    async def use() -> None:
        async with sleep.awake():
            assert not sleep.fall_asleep()
            assert model.is_loaded
        assert sleep.fall_asleep()
        assert not model.is_loaded
        assert sleep.facts == SleepFacts({"id": "m"}, {"is_sleeping": True})
        async with sleep.awake():
            assert model.is_loaded

    asyncio.run(use())
    assert model.loads == 2
    assert not sleep.is_asleep


def test_requests_at_once_load_the_model_once() -> None:
    model = Model()
    sleep = sleeper(model)
    sleep.fall_asleep()

    async def use() -> None:
        async with sleep.awake():
            assert model.is_loaded
            await asyncio.sleep(0.001)
            assert model.is_loaded

    async def all_at_once() -> None:
        await asyncio.gather(*(use() for _ in range(20)))

    asyncio.run(all_at_once())
    assert model.loads == 2


@pytest.mark.parametrize("seconds", [-1, 0])
def test_the_thread_sleeps_after_the_idle_time(seconds: float) -> None:
    model = Model()
    sleep = sleeper(model, seconds)
    sleep.start()
    time.sleep(0.3)
    sleep.stop()
    assert sleep.is_asleep == (seconds == 0)
