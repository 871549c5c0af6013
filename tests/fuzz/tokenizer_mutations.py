"""Changes of a tokenizer's metadata, as typed values of a GGUF file."""

import random
from collections.abc import Callable, Mapping

from gguf_bytes import ARRAY, STRING

from minillama.tokenizer.pretokenizers import PRETOKENIZERS
from minillama.tokenizer.special_tokens import END_TEXTS, ROLE_TEXTS
from tests.fuzz import hostile_values
from tests.fuzz.gguf_parts import BOOL, Value, random_content, random_value

Values = dict[bytes, Value]
TOKENS, TYPES = b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type"
SCORES, MERGES = b"tokenizer.ggml.scores", b"tokenizer.ggml.merges"
ELEMENTS = {TOKENS: (STRING,), MERGES: (STRING,), SCORES: (6,), TYPES: (4, 5, 11)}
ROLES = ("bos", "eos", "unknown", "padding", "eot", "eom", "prefix", "suffix", "middle", *ROLE_TEXTS)
FLAGS = ("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces")
MODELS = (b"llama", b"gpt2", b"gpt2", b"gemma4", b"bert", b"t5", b"rwkv", b"none", b"plamo2", b"")
SPECIAL_TEXTS = (*END_TEXTS, *(text for texts in ROLE_TEXTS.values() for text in texts), "<|channel|>", "<|plamo:eos|>")


def _list(values: Values, key: bytes) -> list[object] | None:
    value = values.get(key)
    if value is None or value.kind != ARRAY or value.content[0] not in ELEMENTS[key]:
        return None
    return list(value.content[1])


def _store(values: Values, key: bytes, elements: list[object]) -> None:
    values[key] = Value(ARRAY, (values[key].content[0], elements))


def change_length(rng: random.Random, values: Values) -> None:
    """Lists of different lengths."""
    key = rng.choice((TOKENS, TYPES, SCORES, MERGES))
    if elements := _list(values, key):
        cut = rng.choice((0, 1, 2, len(elements) - 1, len(elements) // 2))
        _store(values, key, elements[:cut] if rng.random() < 0.7 else elements + elements[:cut])


def change_all_lengths(rng: random.Random, values: Values) -> None:
    """A smaller vocabulary."""
    size = rng.choice((1, 2, 3, 10, 259, 260, 290))
    for key in (TOKENS, TYPES, SCORES):
        if elements := _list(values, key):
            _store(values, key, elements[:size])


def change_texts(rng: random.Random, values: Values) -> None:
    """Tokens that are empty, equal, special or not UTF-8."""
    if elements := _list(values, TOKENS):
        for _ in range(rng.choice((1, 2, 5, 50))):
            new: object = hostile_values.raw_text(rng)
            if rng.random() < 0.3:
                new = rng.choice(SPECIAL_TEXTS).encode()
            elif rng.random() < 0.3:
                new = rng.choice(elements)
            elements[rng.randrange(len(elements))] = new
        _store(values, TOKENS, elements)


def change_types(rng: random.Random, values: Values) -> None:
    """Token types of any number."""
    if elements := _list(values, TYPES):
        for _ in range(rng.choice((1, 5, 100))):
            elements[rng.randrange(len(elements))] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, -1, 2**31 - 1, -(2**31)))
        kind = rng.choice((4, 5, 5, 5, 11))
        values[TYPES] = Value(ARRAY, (kind, [hostile_values.wrapped(int(each), kind) for each in elements]))


def change_scores(rng: random.Random, values: Values) -> None:
    """Scores that are equal, infinite or no numbers."""
    if elements := _list(values, SCORES):
        for _ in range(rng.choice((1, 5, 100))):
            elements[rng.randrange(len(elements))] = random_content(rng, 6)
        _store(values, SCORES, elements)


def change_merges(rng: random.Random, values: Values) -> None:
    """Merges of unknown texts, without two texts, repeated, in another order."""
    elements = _list(values, MERGES)
    if elements is None:  # none, or of another type
        values[MERGES] = Value(ARRAY, (STRING, []))
        elements = []
    for _ in range(rng.choice((1, 5, 50))):
        pair = [hostile_values.raw_text(rng) for _ in range(rng.choice((0, 1, 2, 2, 2, 3)))]
        elements.insert(rng.randrange(len(elements) + 1), b" ".join(pair))
    if rng.random() < 0.2:
        rng.shuffle(elements)
    _store(values, MERGES, elements)


def change_ids(rng: random.Random, values: Values) -> None:
    """Ids of special tokens of any number."""
    for _ in range(rng.choice((1, 2, 6))):
        number = rng.choice((0, 1, 2, 100, 299, 300, 2**32 - 1, hostile_values.integer(rng)))
        kind = rng.choice((4, 4, 4, 5, 10, 11))
        name = f"tokenizer.ggml.{rng.choice(ROLES)}_token_id".encode()
        values[name] = Value(kind, hostile_values.wrapped(number, kind)) if rng.random() < 0.9 else random_value(rng)


def change_flags(rng: random.Random, values: Values) -> None:
    """Switches, of booleans or other types."""
    for name in rng.sample(FLAGS, rng.randrange(1, 4)):
        new = Value(BOOL, rng.random() < 0.5) if rng.random() < 0.8 else random_value(rng)
        values[f"tokenizer.ggml.{name}".encode()] = new


def change_names(rng: random.Random, values: Values) -> None:
    """Another kind of tokenizer, another pre-tokenizer, a model with rules of its own."""
    if rng.random() < 0.4:
        values[b"tokenizer.ggml.model"] = Value(STRING, rng.choice(MODELS))
    if rng.random() < 0.8:
        name = rng.choice(sorted(PRETOKENIZERS)).encode()
        values[b"tokenizer.ggml.pre"] = Value(STRING, name if rng.random() < 0.9 else hostile_values.raw_text(rng))
    if rng.random() < 0.1:
        values[b"general.name"] = Value(STRING, rng.choice((b"Phi-3 mini", hostile_values.raw_text(rng))))


def change_value_types(rng: random.Random, values: Values) -> None:
    """A value of any type for any key."""
    if values:
        values[rng.choice(sorted(values))] = random_value(rng)


CHANGES: tuple[Callable[[random.Random, Values], None], ...] = (
    change_length, change_all_lengths, change_texts, change_texts, change_types, change_scores, change_merges,
    change_merges, change_ids, change_ids, change_flags, change_names, change_names, change_value_types,
)  # fmt: skip


def mutate_tokenizer(rng: random.Random, known: Mapping[bytes, Value]) -> Values:
    """The values with one to five changes."""
    values = dict(known)
    for change in rng.choices(CHANGES, k=rng.randrange(1, 6)):
        change(rng, values)
    return values
