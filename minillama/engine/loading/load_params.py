"""Load `Params` from an open GGUF file: find each tensor, check its shape, place it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax import Array

from minillama.errors import FormatError
from minillama.gguf import GGUF, Tensor
from minillama.kernels import Dense, Files, Weight, load_vector, load_weight
from minillama.model import Block, Config, Linear, Params
from minillama.model.config import Scaling
from minillama.model.params import LINEAR_FIELDS, VECTOR_FIELDS
from minillama.model.read_config import config_from_keys, metadata_keys

Advance = Callable[[int], object]  # called with the number of bytes that were loaded

ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def config_of(file: GGUF) -> Config:
    """The configuration of a file; raises FormatError without `token_embd.weight`, and `read_config`'s errors."""
    return config_and_ignored_keys(file)[0]


def config_and_ignored_keys(file: GGUF) -> tuple[Config, list[str]]:
    """The configuration, and the metadata keys that have an effect in other families only."""
    if "token_embd.weight" not in file.tensors:
        raise FormatError(f"{file.path.name}: tensor token_embd.weight is missing; this file holds no language model")
    keys = metadata_keys(file.metadata)
    return config_from_keys(keys, vocab_size=file.tensors["token_embd.weight"].shape[0]), keys.ignored()


def load_params(
    file: GGUF, config: Config, ctx_size: int, devices: Sequence[jax.Device], advance: Advance = lambda size: None
) -> Params:
    """Place a model's parameters.

    ctx_size: positions that will be used; LongRoPE picks its factors by it.
    devices: of each layer, then of the head; the token embedding lies with the first layer.
    Raises FormatError where a tensor is missing or of an unexpected shape, UnsupportedError for its type.
    """
    source = _Source(file, advance)
    width, head = config.embedding_length, devices[-1]
    token_embd = source.linear("token_embd", (config.vocab_size, width), devices[0]).weight
    factors = rope_factors(file, config, ctx_size)
    blocks = tuple(_load_block(source, config, layer, devices[layer]) for layer in range(config.block_count))
    output = source.linear("output", (config.vocab_size, width), head) if "output.weight" in file.tensors else None
    if output is None and head != devices[0]:  # a tied head on another device needs the embedding's rows there
        output = source.linear("token_embd", (config.vocab_size, width), head)
    return Params(
        token_embd=token_embd,
        blocks=blocks,
        output_norm=source.vector("output_norm", width, head),
        output=output,
        rope_factors=None
        if factors is None
        else source.vector(factors.removesuffix(".weight"), config.rope.dimension_count // 2, devices[0]),
    )


def load_segment(
    file: GGUF,
    config: Config,
    ctx_size: int,
    device: jax.Device,
    layers: Sequence[int],
    *,
    embeds: bool,
    unembeds: bool,
    advance: Advance = lambda size: None,
) -> Params:
    """The parameters of some layers.

    With the token embedding only where it embeds, with the head where it unembeds.

    Raises what `load_params` raises.
    """
    source, width = _Source(file, advance), config.embedding_length
    tied = "output.weight" not in file.tensors
    nothing: Weight = Dense(jax.device_put(np.zeros((0, width), np.float32), device))
    factors = rope_factors(file, config, ctx_size)
    whole = config.vocab_size, width
    return Params(
        token_embd=source.linear("token_embd", whole, device).weight if embeds or (unembeds and tied) else nothing,
        blocks=tuple(_load_block(source, config, layer, device) for layer in layers),
        output_norm=source.vector("output_norm", width, device),
        output=source.linear("output", whole, device) if unembeds and not tied else None,
        rope_factors=None
        if factors is None
        else source.vector(factors.removesuffix(".weight"), config.rope.dimension_count // 2, device),
    )


def unused_tensors(file: GGUF, config: Config) -> list[str]:
    """Tensors that `load_params` does not read, a sign of an unsupported variant."""
    fields = {f"{field}.{kind}" for field in LINEAR_FIELDS | VECTOR_FIELDS for kind in ("weight", "bias")}
    known = {"token_embd.weight", "output_norm.weight", "output.weight", "output.bias", *ROPE_FACTORS}
    known |= {f"blk.{layer}.{field}" for layer in range(config.block_count) for field in fields}
    return [name for name in file.tensors if name not in known]


def find_tensor(file: GGUF, name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of an expected shape; raises FormatError if it is missing or differs."""
    tensor = file.tensors.get(name)
    if tensor is None:
        raise FormatError(f"{file.path.name}: tensor {name} is missing; the file is incomplete or of a newer variant")
    if tensor.shape != shape and not (len(shape) == 1 and tensor.shape == (1, *shape)):
        raise FormatError(f"{file.path.name}: tensor {name} has shape {tensor.shape}; expected {shape}")
    return tensor


class _Source:
    """Reads tensors by name and reports progress."""

    def __init__(self, file: GGUF, advance: Advance) -> None:
        self.file, self.advance = file, advance
        self._files = Files(file.mapped)

    def linear(self, name: str, shape: tuple[int, ...], device: jax.Device) -> Linear:
        tensor = find_tensor(self.file, f"{name}.weight", shape)
        weight = load_weight(tensor, self._files, device)
        self.advance(tensor.nbytes)
        biased = f"{name}.bias" in self.file.tensors
        return Linear(weight, self.vector(name, shape[-2], device, "bias") if biased else None)

    def vector(self, name: str, size: int, device: jax.Device, kind: str = "weight") -> Array:
        tensor = find_tensor(self.file, f"{name}.{kind}", (size,))
        self.advance(tensor.nbytes)
        return load_vector(tensor.data.reshape(-1), tensor.type, tensor.name, device)


def _load_block(source: _Source, config: Config, layer: int, device: jax.Device) -> Block:
    """One layer: each field of Block that the file has, or that it must have."""
    present: dict[str, Linear | Array] = {}
    for field, shape in layer_shapes(source.file, config, layer):
        name = f"blk.{layer}.{field}"
        if field in LINEAR_FIELDS:
            present[field] = source.linear(name, shape, device)
        else:
            present[field] = source.vector(name, shape[0], device)
    return Block(**present)


def layer_shapes(file: GGUF, config: Config, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The fields of Block that a layer has or must have, with their shapes."""
    for field in dataclasses.fields(Block):
        if field.name in _required(file, layer) or f"blk.{layer}.{field.name}.weight" in file.tensors:
            yield field.name, _shape(file, config, layer, field.name)


def _required(file: GGUF, layer: int) -> set[str]:
    """Fields without which a layer has no meaning.

    Of fused and separate tensors one form is enough.
    """

    def has(field: str) -> bool:
        return f"blk.{layer}.{field}.weight" in file.tensors

    needed = {"attn_norm", "attn_output", "ffn_norm"}
    needed |= {"attn_qkv"} if has("attn_qkv") else {"attn_q", "attn_k", "attn_v"}
    if has("ffn_gate_inp"):
        needed |= {"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}
        if has("ffn_gate_shexp"):
            needed |= {"ffn_gate_inp_shexp", "ffn_up_shexp", "ffn_down_shexp"}
        return needed
    return needed | {"ffn_up", "ffn_down"}


def _shape(file: GGUF, config: Config, layer: int, field: str) -> tuple[int, ...]:
    """The expected shape of a layer's tensor; the feed-forward width is taken from the file."""
    width, heads, kv_heads = config.embedding_length, config.head_count, config.head_count_kv
    queries, keys, values = heads * config.key_length, kv_heads * config.key_length, kv_heads * config.value_length
    experts = (config.expert_count,)

    def hidden(down: str) -> int:
        tensor = file.tensors.get(f"blk.{layer}.{down}.weight")
        return tensor.shape[-1] if tensor is not None else 0

    fused = 1 if f"blk.{layer}.ffn_gate.weight" in file.tensors else 2
    shapes = {
        "attn_norm": (width,), "ffn_norm": (width,), "post_attention_norm": (width,), "post_ffw_norm": (width,),
        "attn_q_norm": (config.key_length,), "attn_k_norm": (config.key_length,), "ffn_gate_inp_shexp": (width,),
        "attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (values, width),
        "attn_qkv": (queries + keys + values, width), "attn_output": (width, heads * config.value_length),
        "ffn_gate": (hidden("ffn_down"), width), "ffn_up": (fused * hidden("ffn_down"), width),
        "ffn_down": (width, hidden("ffn_down")), "ffn_gate_inp": (config.expert_count, width),
        "ffn_gate_exps": (*experts, hidden("ffn_down_exps"), width),
        "ffn_up_exps": (*experts, hidden("ffn_down_exps"), width),
        "ffn_down_exps": (*experts, width, hidden("ffn_down_exps")),
        "ffn_gate_shexp": (hidden("ffn_down_shexp"), width), "ffn_up_shexp": (hidden("ffn_down_shexp"), width),
        "ffn_down_shexp": (width, hidden("ffn_down_shexp")),
    }  # fmt: skip
    return shapes[field]


def rope_factors(file: GGUF, config: Config, ctx_size: int) -> str | None:
    """The tensor of frequency factors that applies, if any."""
    if config.rope.scaling is Scaling.LONGROPE or "rope_factors_long.weight" in file.tensors:
        long = ctx_size > config.rope.original_context_length
        name = "rope_factors_long.weight" if long else "rope_factors_short.weight"
    else:
        name = "rope_freqs.weight"
    return name if name in file.tensors else None
