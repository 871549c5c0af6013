"""GPT-2's byte alphabet: one printable character for each byte, as byte-level BPE vocabularies write tokens."""

from collections.abc import Mapping
from types import MappingProxyType


def _byte_to_character() -> dict[int, str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


# In the order of GPT-2's vocabulary: first the bytes that are printable characters themselves, then the others.
BYTE_TO_CHARACTER: Mapping[int, str] = MappingProxyType(_byte_to_character())
CHARACTER_TO_BYTE: Mapping[str, int] = MappingProxyType(
    {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
)
