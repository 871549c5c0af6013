"""Vocabulary of a GGUF file: token texts, token attributes, and ids with a special role."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minillama.errors import FormatError, quoted
from minillama.tokenizer.special_tokens import ROLE_TEXTS, find_special_ids

log = logging.getLogger("minillama")

# Attributes of a token, as bits: a token can be control and user-defined at once.
UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 2, 4, 8, 16, 32
# tokenizer.ggml.token_type 0..6 -> attributes (0 is "undefined": such a token has no text).
TYPE_ATTRIBUTES = (0, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)
NO_ID = 0xFFFFFFFF  # converters write this for "none"
OLD_KEYS = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}  # deprecated keys of these roles


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens by id.

    `attributes[id]` has the attribute bits of a token. `ids` finds a token by its text, the last of equal texts.
    """

    tokens: tuple[str, ...]
    ids: Mapping[str, int]
    attributes: bytes
    bos: int | None
    eos: int | None
    unknown: int | None
    eog: frozenset[int]

    def ids_with(self, attributes: int) -> list[int]:
        """Ids of the tokens with at least one of these attributes."""
        return np.flatnonzero(np.frombuffer(self.attributes, np.uint8) & attributes).tolist()


def read_vocabulary(
    metadata: Mapping[str, object], bos: int | None, eos: int | None, unknown: int | None
) -> Vocabulary:
    """Read tokens, types and special ids.

    bos, eos, unknown: the default ids of this tokenizer model. Raises FormatError if a list is missing, too short or of
    a wrong type.
    """
    tokens = _read_tokens(metadata)
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) < len(tokens):
        log.warning("%d tokens have the text of another token; the last of equals is used", len(tokens) - len(ids))
    types = read_numbers(metadata, "tokenizer.ggml.token_type", len(tokens))
    if types is None:
        attributes = bytearray([NORMAL]) * len(tokens)
    else:
        known = (types >= 0) & (types < len(TYPE_ATTRIBUTES))
        attributes = bytearray(
            np.array(TYPE_ATTRIBUTES, np.uint8)[np.where(known, types, 0).astype(np.int64)].tobytes()
        )
    bos = special_id(metadata, "bos", len(tokens), bos)
    eos = special_id(metadata, "eos", len(tokens), eos)
    roles = {role: special_id(metadata, role, len(tokens), None) for role in ROLE_TEXTS}
    found = find_special_ids(ids, {**roles, "eos": eos})
    for index in found.control:
        attributes[index] |= CONTROL
    for index in found.user_defined:
        attributes[index] = USER_DEFINED
    for index in found.normal:
        attributes[index] = NORMAL
    unknown = special_id(metadata, "unknown", len(tokens), unknown)
    return Vocabulary(tokens, ids, bytes(attributes), bos, eos, unknown, found.eog)


def special_id(metadata: Mapping[str, object], role: str, size: int, default: int | None) -> int | None:
    """The id in `tokenizer.ggml.<role>_token_id`; the default if it is absent or "none".

    An id outside the vocabulary causes a warning, and the default is used, as in llama.cpp.
    """
    if default is not None and default >= size:
        default = None
    for name in (OLD_KEYS.get(role), role):
        key = f"tokenizer.ggml.{name}_token_id"
        if name is None or key not in metadata:
            continue
        value = metadata[key]
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise FormatError(f"{key} is {quoted(value)}, not a token id; convert the model again")
        if 0 <= value < size:
            default = int(value)
        elif value not in (-1, NO_ID):
            used = "none" if default is None else default
            log.warning("%s is %d, outside the vocabulary of %d tokens; %s is used", key, value, size, used)
    return default


def read_flag(metadata: Mapping[str, object], key: str, default: bool) -> bool:
    """An optional boolean of the metadata; FormatError for another type."""
    value = metadata.get(key, default)
    if not isinstance(value, bool | np.bool_):
        raise FormatError(f"{key} is {quoted(value)}, not a boolean; convert the model again")
    return bool(value)


def read_numbers(metadata: Mapping[str, object], key: str, size: int) -> np.ndarray | None:
    """One number for each token; None if the file has no such list.

    Numbers past the last token are dropped, as in llama.cpp.
    """
    if key not in metadata:
        return None
    values = np.asarray(metadata[key])
    if values.dtype.kind not in "iuf" or values.ndim != 1 or len(values) < size or not np.isfinite(values).all():
        raise FormatError(f"{key} must hold {size} numbers, one for every token; convert the model again")
    return values[:size]


def read_texts(metadata: Mapping[str, object], key: str) -> tuple[str, ...]:
    """A required list of texts; FormatError if it is missing or has another type."""
    values = metadata.get(key)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise FormatError(f"{key} is missing or not a list of texts; convert the model again")
    if set(map(type, values)) - {str}:
        raise FormatError(f"{key} holds something that is not a text; convert the model again")
    return tuple(values)


def _read_tokens(metadata: Mapping[str, object]) -> tuple[str, ...]:
    tokens = read_texts(metadata, "tokenizer.ggml.tokens")
    if not tokens:
        raise FormatError("tokenizer.ggml.tokens is empty; convert the model again")
    if "" in tokens:  # llama.cpp's name for them, which keeps texts unique
        tokens = tuple(text or f"[EMPTY_{index}]" for index, text in enumerate(tokens))
    return tokens
