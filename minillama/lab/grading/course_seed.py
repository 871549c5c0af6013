"""Seeds of the checks' hidden inputs; a course can have inputs of its own.

MINILLAMA_COURSE_SEED, or the seed of `Item.require`, changes every input that a check draws through `hidden_seed`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from minillama.errors import OptionError, quoted

VARIABLE = "MINILLAMA_COURSE_SEED"
LARGEST = 2**32 - 1
Draw = Callable[[np.random.Generator], object]

_given: ContextVar[int | None] = ContextVar("course_seed", default=None)


def hidden_seed(base: int) -> int:
    """Seed of a check's inputs: `base`, mixed with the course's seed if there is one."""
    seed = course_seed()
    return base if seed is None else int(np.random.SeedSequence([base, seed]).generate_state(1)[0])


def hidden_random(base: int) -> np.random.Generator:
    """Generator of a check's inputs, from `hidden_seed(base)`."""
    return np.random.default_rng(hidden_seed(base))


def hidden_cases(
    base: int, *draws: Draw, count: int = 2, fits: Callable[..., bool] = lambda *case: True
) -> list[tuple]:
    """Arguments of further cases, from `hidden_seed(base)`.

    They come after a check's chosen cases, each of which shows a mistake. draws: one for each argument. fits: whether a
    case may be used; if not, another one is drawn.
    """
    random, found = hidden_random(base), []
    while len(found) < count:
        case = tuple(draw(random) for draw in draws)
        if fits(*case):
            found.append(case)
    return found


def whole(low: int, high: int) -> Draw:
    """A whole number, both ends included."""
    return lambda random: int(random.integers(low, high, endpoint=True))


def real(low: float, high: float) -> Draw:
    """A positive number of three digits, of any order of magnitude between the ends."""
    return lambda random: float(f"{low * (high / low) ** random.random():.3g}")


def share() -> Draw:
    """A share of two digits, from 0.05 to 0.95."""
    return lambda random: round(float(random.uniform(0.05, 0.95)), 2)


def one_of(*values: object) -> Draw:
    """One of the values."""
    return lambda random: values[int(random.integers(len(values)))]


def course_seed() -> int | None:
    """Seed given to this check, else that of the environment, else None.

    Raises OptionError for a wrong one."""
    if (given := _given.get()) is not None:
        return given
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST):
        raise OptionError(f"{VARIABLE} is {quoted(text)}; give a whole number from 0 to {LARGEST}, or unset it")
    return int(text)


@contextmanager
def with_course_seed(seed: int | None) -> Iterator[None]:
    """Use a seed for the checks inside; None leaves that of the environment."""
    token = _given.set(_given.get() if seed is None else seed)
    try:
        yield
    finally:
        _given.reset(token)
