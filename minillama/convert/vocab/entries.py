"""Metadata of the tokenizer as entries: a key, a type and a value."""

from dataclasses import dataclass

from gguf.constants import GGUFValueType

PREFIX = "tokenizer.ggml."


@dataclass(frozen=True)
class Entry:
    """Type and value of a metadata key."""

    type: GGUFValueType
    value: object


Entries = dict[str, Entry]  # key -> entry, in the order of the file


def text(value: str) -> Entry:
    return Entry(GGUFValueType.STRING, value)


def identifier(value: int) -> Entry:
    """A token id."""
    return Entry(GGUFValueType.UINT32, value)


def boolean(value: bool) -> Entry:
    return Entry(GGUFValueType.BOOL, value)


def listed(value: list) -> Entry:
    return Entry(GGUFValueType.ARRAY, value)
