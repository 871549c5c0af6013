"""Changes of a GGUF file's parts: each is a function of random numbers and the parts."""

import random
import struct
from collections.abc import Callable

import numpy as np
from gguf_bytes import ARRAY, STRING

from minillama.model import FAMILIES
from minillama.model.tensor_table import ARRAYS, LINEAR
from tests.fuzz import hostile_values
from tests.fuzz.gguf_parts import (
    BOOL,
    FLOAT_KINDS,
    INTEGER_KINDS,
    Entry,
    Parts,
    Value,
    random_content,
    random_value,
    size_of,
)
from tests.fuzz.tokenizer_mutations import mutate_tokenizer

ARCHITECTURES = tuple(name.encode() for name in FAMILIES)
# Keys that a family may have and the tiny models lack.
MORE_KEYS = (
    "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length",
    "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier", "rope.freq_base", "rope.freq_base_swa",
    "rope.dimension_count", "attention.sliding_window", "attention.sliding_window_pattern", "attention.scale",
    "attn_logit_softcapping", "final_logit_softcapping", "expert_count", "expert_used_count", "expert_weights_scale",
    "expert_weights_norm", "expert_gating_func", "expert_group_count", "expert_group_used_count", "embedding_scale",
    "residual_scale", "logit_scale", "attention.temperature_scale", "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon", "rope.scaling.alpha", "rope.scaling.finetuned", "rope.dimension_sections",
    "attention.value_length", "attention.key_length", "nextn_predict_layers", "vocab_size", "block_count",
    "attention.head_count", "attention.head_count_kv", "embedding_length", "context_length", "feed_forward_length",
)  # fmt: skip
ROPE_SCALINGS = (b"none", b"linear", b"yarn", b"longrope", b"su", b"dynamic", b"")
NAMES = (
    "token_embd.weight", "output.weight", "output_norm.weight", "output.bias", "rope_freqs.weight",
    "rope_factors_long.weight", "rope_factors_short.weight",
)  # fmt: skip
PER_LAYER = ("attention.head_count", "attention.head_count_kv", "feed_forward_length", "attention.key_length")
FIELDS = (*LINEAR, *ARRAYS)


def _architecture(parts: Parts) -> bytes:
    value = parts.find(b"general.architecture")
    return value.content if value is not None and isinstance(value.content, bytes) else b"llama"


def change_number(rng: random.Random, parts: Parts) -> None:
    """Another value of the same type."""
    known = [pair for pair in parts.pairs if pair[1].kind not in (STRING, ARRAY)]
    if known:
        key, old = rng.choice(known)
        parts.set(key, Value(old.kind, random_content(rng, old.kind)))


def change_type(rng: random.Random, parts: Parts) -> None:
    """A value of another type, perhaps an array for a number."""
    if parts.pairs:
        key, old = rng.choice(parts.pairs)
        new = random_value(rng)
        if old.kind not in (STRING, ARRAY) and rng.random() < 0.3:
            new = Value(ARRAY, (old.kind, [old.content] * rng.choice((0, 1, 2, 7, 64))))
        parts.set(key, new)


def add_known_key(rng: random.Random, parts: Parts) -> None:
    """A key of the family, with a number that may be extreme."""
    key = f"{_architecture(parts).decode('latin-1')}.{rng.choice(MORE_KEYS)}".encode()
    kind = rng.choice((4, 4, 5, 6, 6, 10, 12))
    content = random_content(rng, kind) if rng.random() < 0.6 else rng.choice((0, 1, 2, 4, 8, 16, 32, 64, 96))
    if key.endswith(b"rope.scaling.type"):
        kind, content = STRING, rng.choice(ROPE_SCALINGS)
    elif key.endswith((b"_pattern", b"_norm", b"finetuned", b"_layers")) and rng.random() < 0.7:
        kind, content = BOOL, rng.random() < 0.5
        if key.endswith((b"_pattern", b"_layers")):
            kind, content = ARRAY, (BOOL, [rng.random() < 0.5 for _ in range(rng.choice((0, 1, 2, 7, 8)))])
    parts.set(key, Value(kind, float(content) if kind in FLOAT_KINDS else content))


def change_layers(rng: random.Random, parts: Parts) -> None:
    """One number a layer, which differ or are impossible, in place of one for all."""
    key = f"{_architecture(parts).decode('latin-1')}.{rng.choice(PER_LAYER)}".encode()
    kind, old = rng.choice((4, 5, 5, 10, 11)), parts.find(key)
    usual = [old.content] if old is not None and isinstance(old.content, int) else [2]
    numbers = [*usual, *usual, *usual, 1, 2, 4, 0, -1, 3, hostile_values.integer(rng)]
    count = rng.choice((0, 1, 2, 2, 3, 4, 7, 8, 600))
    parts.set(key, Value(ARRAY, (kind, [hostile_values.wrapped(rng.choice(numbers), kind) for _ in range(count)])))


def add_key(rng: random.Random, parts: Parts) -> None:
    """An unknown key; perhaps one that cannot be a name."""
    parts.pairs.append((hostile_values.raw_text(rng), random_value(rng)))


def remove_key(rng: random.Random, parts: Parts) -> None:
    if parts.pairs:
        parts.pairs.remove(rng.choice(parts.pairs))


def repeat_key(rng: random.Random, parts: Parts) -> None:
    if parts.pairs:
        parts.pairs.insert(rng.randrange(len(parts.pairs)), rng.choice(parts.pairs))


def change_architecture(rng: random.Random, parts: Parts) -> None:
    """Another family; its keys may get its name, too."""
    old = _architecture(parts)
    new = rng.choice(ARCHITECTURES) if rng.random() < 0.8 else hostile_values.raw_text(rng)
    parts.set(b"general.architecture", Value(STRING, new))
    if rng.random() < 0.8:
        parts.pairs = [
            (new + key[len(old) :] if key.startswith(old + b".") else key, value) for key, value in parts.pairs
        ]


def scale_model(rng: random.Random, parts: Parts) -> None:
    """Sizes that fit each other less or more than before."""
    name = _architecture(parts).decode("latin-1")
    for _ in range(rng.randrange(1, 4)):
        key = f"{name}.{rng.choice(MORE_KEYS[-10:])}".encode()
        parts.set(key, Value(4, rng.choice((0, 1, 2, 3, 4, 8, 16, 32, 64, 128, 2**16, 2**31, 2**32 - 1))))


def change_tensor(rng: random.Random, parts: Parts) -> None:
    """Another shape or type, with or without data of the new size."""
    if not parts.tensors:
        return
    entry = rng.choice(parts.tensors)
    choice = rng.random()
    if choice < 0.3 and entry.dims:
        place = rng.randrange(len(entry.dims))
        entry.dims[place] = rng.choice((0, 1, 2, 32, 64, 96, 300, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
    elif choice < 0.4:
        rng.shuffle(entry.dims)
    elif choice < 0.5:
        entry.dims = [rng.choice((1, 1, 2, 64)) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 9)))]
    elif choice < 0.6:
        entry.dims.append(rng.choice((1, 1, 2, 4)))
    elif choice < 0.9:
        entry.kind = rng.choice((*range(42), 2**31, 2**32 - 1))
    else:
        entry.name = rng.choice(parts.tensors).name if rng.random() < 0.5 else hostile_values.raw_text(rng)
    size = size_of(entry.dims, entry.kind)
    if size is not None and rng.random() < 0.8:
        entry.data = (entry.data * (size // max(1, len(entry.data)) + 1))[:size]


def change_kind_validly(rng: random.Random, parts: Parts) -> None:
    """Another type with right sizes, for one or all tensors."""
    kind = rng.choice((0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 18, 20, 23, 24, 25, 26, 27, 28, 29, 30, 34, 39))
    for entry in parts.tensors if rng.random() < 0.3 else [rng.choice(parts.tensors)] if parts.tensors else []:
        size = size_of(entry.dims, kind)
        if size:
            entry.kind, entry.data = kind, (entry.data * (size // max(1, len(entry.data)) + 1))[:size]


def add_tensor(rng: random.Random, parts: Parts) -> None:
    """A tensor that the family may not have, or one that is there already."""
    if parts.tensors and rng.random() < 0.3:
        old = rng.choice(parts.tensors)
        parts.tensors.insert(rng.randrange(len(parts.tensors)), Entry(old.name, list(old.dims), old.kind, old.data))
        return
    name = rng.choice(NAMES) if rng.random() < 0.3 else f"blk.{rng.choice((0, 1, 2, 7, 99))}.{rng.choice(FIELDS)}."
    name += rng.choice(("weight", "bias")) if name.endswith(".") else ""
    dims = [rng.choice((1, 2, 4, 8, 16, 32, 64, 96, 128, 300)) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    dims = dims if np.prod(dims) < 2**18 else dims[:1]
    parts.tensors.append(Entry(name.encode(), dims, 0, bytes(4 * int(np.prod(dims)))))


def remove_tensor(rng: random.Random, parts: Parts) -> None:
    for _ in range(rng.choice((1, 1, 1, 5))):
        if parts.tensors:
            parts.tensors.remove(rng.choice(parts.tensors))


def rename_tensor(rng: random.Random, parts: Parts) -> None:
    if parts.tensors:
        entry = rng.choice(parts.tensors)
        field = rng.choice(FIELDS).encode()
        entry.name = (
            b".".join([*entry.name.split(b".")[:2], field, b"weight"]) if rng.random() < 0.7 else b"x" + entry.name
        )


def move_tensor(rng: random.Random, parts: Parts) -> None:
    """Offsets that overlap, wrap around, are not aligned or lie past the end."""
    if parts.tensors:
        entry = rng.choice(parts.tensors)
        entry.offset = rng.choice((0, 8, 32, 64, 96, 1024, 2**31, 2**40, 2**63, 2**64 - 32, rng.randrange(2**17)))


def shuffle_tensors(rng: random.Random, parts: Parts) -> None:
    rng.shuffle(parts.tensors)


def change_weights(rng: random.Random, parts: Parts) -> None:
    """NaN, infinity, extreme numbers or noise in one tensor or all."""
    for entry in parts.tensors if rng.random() < 0.2 else [rng.choice(parts.tensors)] if parts.tensors else []:
        if entry.kind == 0 and entry.data:
            pattern = struct.pack("<f", np.float32(np.clip(hostile_values.floating(rng), -3.4e38, 3.4e38)))
            pattern = rng.choice((pattern, b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", rng.randbytes(4)))
            data = bytearray(entry.data)
            at = 4 * rng.randrange(len(data) // 4) if rng.random() < 0.5 else 0
            data[at:] = (
                (pattern * (len(data) // 4))[: len(data) - at] if rng.random() < 0.5 else pattern + data[at + 4 :]
            )
            entry.data = bytes(data)
        elif entry.data:
            entry.data = rng.randbytes(min(len(entry.data), 4096)) + entry.data[4096:]


def change_alignment(rng: random.Random, parts: Parts) -> None:
    """An alignment that the offsets follow or not."""
    number = rng.choice((0, 1, 2, 4, 8, 16, 24, 31, 64, 128, 4096, 2**16, 2**31, 2**32 - 1))
    parts.set(b"general.alignment", Value(rng.choice((4, 4, 4, 5, 10)), number % 2**31))
    if 0 < number <= 4096 and rng.random() < 0.8:
        parts.alignment = number


def change_header(rng: random.Random, parts: Parts) -> None:
    """Another version or wrong counts."""
    if rng.random() < 0.3:
        parts.version = rng.choice((0, 1, 2, 2, 4, 2**24, 3 << 24, 2**32 - 1))
    else:
        tensors, pairs = len(parts.tensors), len(parts.pairs)
        shift = rng.choice((-1, 1, 2**32, 2**63, hostile_values.integer(rng)))
        parts.counts = (tensors + shift, pairs) if rng.random() < 0.5 else (tensors, pairs + shift)


def flip_bits(rng: random.Random, parts: Parts) -> None:
    """Other bytes anywhere, mostly in the header."""
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(2 ** rng.randrange(3, 20))
        number = rng.choice((0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
        new = rng.choice((rng.randbytes(1), rng.randbytes(rng.randrange(1, 9)), struct.pack("<Q", number), b""))
        parts.edits.append((place, new, rng.random() < 0.3))


def truncate(rng: random.Random, parts: Parts) -> None:
    parts.length = rng.randrange(2 ** rng.randrange(1, 21))


def change_split(rng: random.Random, parts: Parts) -> None:
    """Numbers of a split model."""
    for key in (b"split.count", b"split.no", b"split.tensors.count"):
        if rng.random() < 0.6:
            kind = rng.choice((2, 2, 2, 4, 5, *INTEGER_KINDS))
            number = rng.choice((0, 1, 2, 3, 99_999, 100_000, hostile_values.integer(rng)))
            parts.set(key, Value(kind, hostile_values.wrapped(number, kind)))


def change_template(rng: random.Random, parts: Parts) -> None:
    """A chat template that is broken, strange or long."""
    text = rng.choice(TEMPLATES) if rng.random() < 0.8 else hostile_values.text(rng) * rng.choice((1, 200))
    parts.set(b"tokenizer.chat_template", Value(STRING, text.encode("utf-8", "surrogatepass")))


TEMPLATES = (
    "", "{{", "{% for m in messages %}", "{{ messages }}", "{% endfor %}", "{{ 1 / 0 }}", "{% include 'x' %}",
    "{{ x.y.z }}", "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}", "{{ 'a' * 10**9 }}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{% break %}", "{{ " + "(" * 300 + ")" * 300 + " }}",
    "{% if " + "not " * 2000 + "x %}{% endif %}",
)  # fmt: skip


def mutate_vocabulary(rng: random.Random, parts: Parts) -> None:
    """Change the tokenizer's lists and numbers."""
    found = {key: value for key, value in parts.pairs if key.startswith(b"tokenizer.")}
    for key, value in mutate_tokenizer(rng, found).items():
        parts.set(key, value)


Mutation = Callable[[random.Random, Parts], None]
MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (change_number, 10), (change_type, 6), (add_known_key, 12), (change_layers, 4), (add_key, 3), (remove_key, 3),
    (repeat_key, 1), (change_architecture, 4), (scale_model, 4), (change_tensor, 8), (change_kind_validly, 5),
    (add_tensor, 4),
    (remove_tensor, 2), (rename_tensor, 2), (move_tensor, 3), (shuffle_tensors, 1), (change_weights, 4),
    (change_alignment, 2), (change_header, 2), (flip_bits, 6), (truncate, 3), (change_split, 2), (change_template, 2),
    (mutate_vocabulary, 11),
)  # fmt: skip


def mutate(rng: random.Random, parts: Parts) -> None:
    """Apply one to four changes."""
    functions, weights = zip(*MUTATIONS, strict=True)
    for change in rng.choices(functions, weights, k=rng.choice((1, 1, 1, 2, 2, 3, 4))):
        change(rng, parts)
