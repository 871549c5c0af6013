"""A line of a running cell: its work, and the time that it may take.

    with running("both models compile", seconds=8):
        ...
    with running("types", steps=4) as step:
        for name in names:
            step(name)

A cell that may be silent for more than three seconds has such a line. Interrupting the kernel ends work and line.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm.auto import tqdm

from minillama.lab.language import translate

INTERVAL = 1.0  # seconds between two drawings of the line
THREAD = "running line"
Item = TypeVar("Item")
Step = Callable[..., None]


@contextmanager
def running(what: str, seconds: float = 0.0, *, steps: int = 0) -> Iterator[Step]:
    """Show a line during the block, redrawn every second.

    what: a few words on the work. seconds: that it may take. steps: in its place, how often the block calls the
    yielded function, whose argument, a text, ends the line. The line vanishes with the end of the block.
    """
    bar = tqdm(total=steps or seconds or None, desc=what, leave=False, bar_format=None if steps else _timed(seconds))
    begun, ended = time.perf_counter(), threading.Event()

    def step(text: str = "") -> None:
        bar.set_postfix_str(text, refresh=False)
        bar.update()

    def tick() -> None:
        while not ended.wait(INTERVAL):
            if seconds:
                bar.n = min(time.perf_counter() - begun, seconds)
            bar.refresh()

    # In a copy of the context, in which Jupyter finds the cell that the line belongs to.
    ticker = threading.Thread(target=contextvars.copy_context().run, args=(tick,), name=THREAD, daemon=True)
    ticker.start()
    try:
        yield step
        bar.n = bar.total or 0  # less would be shown as a failure
    finally:
        ended.set()
        ticker.join()
        bar.close()


def _timed(seconds: float) -> str:
    """The form of a line without steps."""
    if not seconds:
        return "{desc}: {elapsed}"
    return "{desc}: |{bar}| {elapsed} " + translate("of about {seconds:.0f} s", seconds=seconds)


def collect(work: Iterable[Item], what: str, steps: int) -> list[Item]:
    """All items of an iterator, with a line during its work.

    A text among the items is no step; it ends the line until the next text. So `collect(measure(...), ...)[-1]` is the
    last figure of a panel's measurement.
    """
    items: list[Item] = []
    text = ""
    with running(what, steps=steps) as step:
        for item in work:
            items.append(item)
            if isinstance(item, str):
                text = item.strip()
            else:
                step(text)
    return items
