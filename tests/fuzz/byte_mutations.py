"""Changes of bytes that know nothing about their format."""

import random
import struct

from tests.fuzz import hostile_values


def mutate_bytes(rng: random.Random, content: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Overwrite, insert, delete, repeat, splice or cut off, one to four times."""
    for _ in range(rng.randrange(1, 5)):
        content = _change(rng, content, others)
    return content


def _change(rng: random.Random, content: bytes, others: tuple[bytes, ...]) -> bytes:
    at = rng.randrange(min(len(content), 2 ** rng.randrange(3, 20)) + 1)
    size = rng.choice((1, 1, 2, 4, 8, 16, 100))
    choice = rng.randrange(8)
    if choice == 0:
        return content[:at]
    if choice == 1:
        return content[:at] + content[at + size :]
    if choice == 2:
        return content[:at] + content[at : at + size] * rng.choice((2, 3, 50)) + content[at + size :]
    if choice == 3 and others:
        other = rng.choice(others)
        return content[:at] + other[rng.randrange(len(other) + 1) :]
    if choice == 4:
        new = hostile_values.raw_text(rng)
    elif choice == 5:
        new = str(hostile_values.integer(rng) if rng.random() < 0.5 else hostile_values.floating(rng)).encode()
    elif choice == 6:
        new = struct.pack("<Q", hostile_values.integer(rng) % 2**64)[: rng.choice((1, 2, 4, 8))]
    else:
        new = rng.randbytes(size)
    return content[:at] + new + content[at + (len(new) if rng.random() < 0.7 else 0) :]
