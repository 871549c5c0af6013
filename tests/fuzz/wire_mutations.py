"""Changes of messages: values of any type and size, arrays of other numbers, shapes and types."""

import random
from collections.abc import Mapping

import numpy as np

from minillama.parallel.workers.wire import Message
from tests.fuzz import hostile_values

LARGE = (-1, 0, -(2**31), 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, 10**30)
COUNTS = (-1, 0, 1, 2, 5, 31, 32, 33, 64, 299, 300, 512, 513, 2**31 - 1, -(2**31), 2_000_000_000)
DTYPES = ("|i1", "|u1", "<i2", "<i4", "<i4", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
SIZES = frozenset({"capacity", "batch"})  # a valid one of these is compiled for


def json_value(rng: random.Random, depth: int = 0) -> object:
    """Any JSON value."""
    choice = rng.randrange(8 if depth < 3 else 5)
    if choice == 0:
        return rng.choice((None, True, False))
    if choice == 1:
        return hostile_values.floating(rng)
    if choice == 2:
        return hostile_values.text(rng)[:300]
    if choice < 5:
        return hostile_values.integer(rng)
    if choice < 7:
        return [json_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 5, 40)))]
    return {hostile_values.text(rng)[:40]: json_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def mutate_message(rng: random.Random, message: Message) -> Message:
    """A message with one to three changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        message = _change(rng, message)
    return message


def _change(rng: random.Random, message: Message) -> Message:
    choice = rng.randrange(10)
    if choice == 0:
        return Message(hostile_values.text(rng)[:300], message.values, message.arrays)
    if choice < 4 and message.arrays:
        arrays = list(message.arrays)
        place = rng.randrange(len(arrays))
        arrays[place] = _array(rng, arrays[place])
        return Message(message.op, message.values, tuple(arrays))
    if choice == 4:
        arrays = rng.choice((message.arrays[1:], message.arrays * 2, (*message.arrays, np.zeros(3, np.float32))))
        return Message(message.op, message.values, arrays)
    return Message(message.op, _values(rng, message.values), message.arrays)


def _values(rng: random.Random, values: Mapping[str, object]) -> dict[str, object]:
    changed = dict(values)
    if not changed or rng.random() < 0.1:
        changed[hostile_values.text(rng)[:40]] = json_value(rng)
        return changed
    name = rng.choice(sorted(changed))
    if rng.random() < 0.1:
        del changed[name]
    elif name in SIZES:
        changed[name] = rng.choice(LARGE) if rng.random() < 0.8 else hostile_values.text(rng)[:40]
    elif isinstance(changed[name], list) and changed[name] and rng.random() < 0.8:
        items = list(changed[name])
        items[rng.randrange(len(items))] = (
            rng.choice((*LARGE, *range(-1, 15), None, "array")) if rng.random() < 0.8 else json_value(rng)
        )
        changed[name] = items if rng.random() < 0.9 else items[1:]
    elif isinstance(changed[name], dict) and rng.random() < 0.8:
        changed[name] = _values(rng, changed[name])
    else:
        changed[name] = json_value(rng)
    return changed


def _array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """Other numbers, another shape or another type."""
    if rng.random() < 0.6 and array.size:
        changed = array.copy()
        number = rng.choice(COUNTS) if rng.random() < 0.9 else hostile_values.integer(rng)
        with np.errstate(all="ignore"):
            new = np.array(number % 2**64, np.uint64).astype(changed.dtype)
        if rng.random() < 0.3:
            changed[...] = new
        else:
            changed.reshape(-1)[rng.randrange(changed.size)] = new
        return changed
    if rng.random() < 0.5:
        return array.astype(rng.choice(DTYPES))
    shape = rng.choice(
        ((), (0,), (1,), (2,), (0, 0), (1, 0), (2, 32), (1, 513), (32,), (1, 32, 1), (1,) * 8, (3, 1), (64, 64))
    )
    return np.zeros(shape, array.dtype)
