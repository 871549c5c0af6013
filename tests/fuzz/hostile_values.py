"""Numbers and texts that programs get wrong, for all kinds of cases."""

import math
import random
import struct

INTEGERS = (
    0, 1, -1, 2, 3, 5, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 4095, 4096, 65535, 65536, 2**24,
    2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -2, -2**31, -2**31 - 1, -2**63,
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-5, 1e-30, 1e-45, 1e30, 3.4028235e38, 1.7e308, 5e-324, math.inf, -math.inf, math.nan,
    1e-12, 4.0, 1e4, 1e6, -1e6,
)  # fmt: skip
TEXTS = (
    "", " ", "\n", "a\nb", "\t\r\n", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\x7f", "\u202eltr", "\u2028", "\ufeff",
    "\ud800", "\udcff", "é", "日本語", "👩‍👩‍👧‍👦", "\U0010ffff", "%s%n%d",
    "{0}{x!r}", "../../etc/passwd", "<s>", "</s>", "<unk>", "<0x00>",
    "<0xGG>", "▁", "▁▁▁", "Ġ", "ĠĠ", "a" * 70, "é" * 300, "x" * 5000, "nan", "-1", "1e999", "true", "None", "[]", "{}",
)  # fmt: skip
WIDTHS = {0: 8, 1: 8, 2: 16, 3: 16, 4: 32, 5: 32, 10: 64, 11: 64}  # bits of GGUF's integer types


def integer(rng: random.Random) -> int:
    """An integer of any size, often an extreme one."""
    if rng.random() < 0.7:
        return rng.choice(INTEGERS)
    return rng.randrange(-(2 ** rng.randrange(1, 64)), 2 ** rng.randrange(1, 65))


def floating(rng: random.Random) -> float:
    """A number, often an extreme one."""
    if rng.random() < 0.8:
        return rng.choice(FLOATS)
    return struct.unpack("<d", rng.randbytes(8))[0]


def text(rng: random.Random) -> str:
    """A text; it may have any code points."""
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    return "".join(
        chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000))))
        for _ in range(rng.randrange(12))
    )


def raw_text(rng: random.Random) -> bytes:
    """Bytes of a text, perhaps not UTF-8."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(1, 20))
    return text(rng).encode("utf-8", "surrogatepass")


def wrapped(number: int, kind: int) -> int:
    """An integer as one of GGUF's types stores it."""
    bits = WIDTHS[kind]
    number &= 2**bits - 1
    return number - 2**bits if kind % 2 and number >= 2 ** (bits - 1) else number
