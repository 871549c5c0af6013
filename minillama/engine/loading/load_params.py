"""Load `Params` from an open GGUF file: find each tensor, check its shape, place it."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax import Array

from minillama.engine.loading.split_kv_b import split_kv_b
from minillama.errors import FormatError
from minillama.gguf import GGUF, Tensor
from minillama.kernels import Dense, Files, Weight, load_vector, load_weight
from minillama.kernels.scaled_weight import ScaledWeight
from minillama.model import Block, Config, Linear, Params
from minillama.model.config import Scaling
from minillama.model.layer_kinds import LatentAttention
from minillama.model.params import PerLayerEmbeddings
from minillama.model.reading.read_config import config_from_keys, metadata_keys
from minillama.model.tensor_table import ARRAYS, LINEAR, Sizes, required, tensor_name

Advance = Callable[[int], object]  # called with the number of bytes that were loaded

# Tensors next to a matrix. llama.cpp reads the scale of activations, which has no effect.
EXTRAS = ("bias", "scale", "input_scale")
PER_LAYER = ("per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm")
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
    file: GGUF,
    config: Config,
    ctx_size: int,
    devices: Sequence[jax.Device],
    advance: Advance = lambda size: None,
    source: "TensorSource | None" = None,
) -> Params:
    """Place a model's parameters.

    ctx_size: positions that will be used; LongRoPE picks its factors by it.
    devices: of each layer, then of the head; the token embedding lies with the first layer.
    source: another way to read tensors.
    Raises FormatError where a tensor is missing or of an unexpected shape, UnsupportedError for its type.
    """
    source = source or TensorSource(file, advance)
    width, head = config.embedding_length, devices[-1]
    token_embd = source.linear("token_embd", (config.vocab_size, width), devices[0]).weight
    factors, pairs = rope_factors(file, config, ctx_size), config.rope.dimension_count // 2
    blocks = tuple(_load_block(source, config, layer, devices[layer]) for layer in range(config.block_count))
    output = source.linear("output", (config.vocab_size, width), head) if "output.weight" in file.tensors else None
    if output is None and head != devices[0]:  # a tied head on another device needs the embedding's rows there
        output = source.linear("token_embd", (config.vocab_size, width), head)
    return Params(
        token_embd=token_embd,
        blocks=blocks,
        output_norm=source.array(f"{config.family.output_norm}.weight", (width,), head),
        output_norm_bias=source.optional("output_norm.bias", (width,), head),
        output=output,
        rope_factors=None if factors is None else source.array(factors, (pairs,), devices[0]),
        per_layer=_load_per_layer(source, config, devices[0]),
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

    With the token embedding only where it embeds, or where layers have embeddings of their own, which begin with it;
    with the head where it unembeds.

    Raises what `load_params` raises.
    """
    source, width = TensorSource(file, advance), config.embedding_length
    tied, embeds = "output.weight" not in file.tensors, embeds or bool(config.per_layer_length)
    nothing: Weight = Dense(jax.device_put(np.zeros((0, width), np.float32), device))
    factors, pairs = rope_factors(file, config, ctx_size), config.rope.dimension_count // 2
    whole = config.vocab_size, width
    return Params(
        token_embd=source.linear("token_embd", whole, device).weight if embeds or (unembeds and tied) else nothing,
        blocks=tuple(_load_block(source, config, layer, device) for layer in layers),
        output_norm=source.array(f"{config.family.output_norm}.weight", (width,), device),
        output_norm_bias=source.optional("output_norm.bias", (width,), device),
        output=source.linear("output", whole, device) if unembeds and not tied else None,
        rope_factors=None if factors is None else source.array(factors, (pairs,), device),
        per_layer=_load_per_layer(source, config, device),
    )


def unused_tensors(file: GGUF, config: Config) -> list[str]:
    """Tensors that `load_params` does not read, a sign of an unsupported variant.

    Layers that predict tokens after the next one (nextn_predict_layers) are no such sign.
    """
    blocks, skipped = config.block_count, metadata_keys(file.metadata).integer("nextn_predict_layers", 0, least=0)
    predicting = tuple(f"blk.{layer}." for layer in range(blocks, blocks + skipped))
    return [name for name in unread_tensors(file, config) if not name.startswith(predicting)]


def unread_tensors(file: GGUF, config: Config) -> list[str]:
    """Tensors that `load_params` does not read."""
    known = {"token_embd.weight", f"{config.family.output_norm}.weight", "output_norm.bias", "output.weight"}
    known |= {f"output.{extra}" for extra in EXTRAS}
    known |= set(ROPE_FACTORS)
    if config.per_layer_length:
        known |= {f"{name}.weight" for name in PER_LAYER}
    for layer in range(config.block_count):
        names = [tensor_name(config.family, layer, field) for field in (*LINEAR, *ARRAYS)]
        known |= {name for name in names if name is not None}
        stems = {str(tensor_name(config.family, layer, field)).removesuffix("weight") for field in LINEAR}
        known |= {stem + extra for stem in stems for extra in EXTRAS}
    return [name for name in file.tensors if name not in known]


def scale_name(file: GGUF, matrix: str) -> str | None:
    """Name of the scale of a matrix, if the file has one; routers have none."""
    name = f"{matrix}.scale"
    return name if name in file.tensors and not matrix.endswith("ffn_gate_inp") else None


def find_tensor(file: GGUF, name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of an expected shape; raises FormatError if it is missing or differs."""
    tensor = file.tensors.get(name)
    if tensor is None:
        raise FormatError(f"{file.path.name}: tensor {name} is missing; the file is incomplete or of a newer variant")
    if tensor.shape != shape and not (len(shape) == 1 and tensor.shape == (1, *shape)):
        raise FormatError(f"{file.path.name}: tensor {name} has shape {tensor.shape}; expected {shape}")
    return tensor


class TensorSource:
    """Reads tensors by name and reports progress."""

    def __init__(self, file: GGUF, advance: Advance) -> None:
        self.file, self.advance = file, advance
        self._files = Files(file.mapped)

    def matrix(self, tensor: Tensor, device: jax.Device) -> Weight:
        """A matrix or a stack of them on a device."""
        return load_weight(tensor, self._files, device)

    def vector(self, tensor: Tensor, device: jax.Device) -> Array:
        """All numbers of a tensor on a device, as float32 [n]."""
        return load_vector(tensor.data.reshape(-1), tensor.type, tensor.name, device)

    def linear(self, name: str, shape: tuple[int, ...], device: jax.Device) -> Linear:
        """A matrix [N, K] or a stack of them, with its bias if any."""
        tensor = find_tensor(self.file, f"{name}.weight", shape)
        scale = scale_name(self.file, name)
        weight = self.matrix(tensor, device)
        if scale is not None:
            weight = ScaledWeight(weight, self.array(scale, shape[:-2] or (1,), device))
        self.advance(tensor.nbytes)
        return Linear(weight, self.optional(f"{name}.bias", shape[:-1], device))

    def key_and_value_maps(
        self, name: str, shape: tuple[int, ...], layer: LatentAttention, device: jax.Device
    ) -> dict[str, Linear]:
        """The two maps in `attn_kv_b`."""
        tensor = find_tensor(self.file, name, shape)
        self.advance(tensor.nbytes)
        k_b, v_b = split_kv_b(tensor, layer, range(layer.head_count), device)
        return {"attn_k_b": Linear(k_b), "attn_v_b": Linear(v_b)}

    def array(self, name: str, shape: tuple[int, ...], device: jax.Device) -> Array:
        """A float array."""
        tensor = find_tensor(self.file, name, shape)
        self.advance(tensor.nbytes)
        flat = self.vector(tensor, device)
        return flat if len(shape) == 1 else flat.reshape(shape)

    def optional(self, name: str, shape: tuple[int, ...], device: jax.Device) -> Array | None:
        """A float array, or None where the file has none of this name."""
        return self.array(name, shape, device) if name in self.file.tensors else None


def _load_per_layer(source: TensorSource, config: Config, device: jax.Device) -> PerLayerEmbeddings | None:
    """The per-layer embeddings; None in models without."""
    if not config.per_layer_length:
        return None
    width, (table, model_proj, proj_norm) = config.block_count * config.per_layer_length, PER_LAYER
    return PerLayerEmbeddings(
        source.linear(table, (config.vocab_size, width), device).weight,
        source.linear(model_proj, (width, config.embedding_length), device),
        source.array(f"{proj_norm}.weight", (config.per_layer_length,), device),
    )


def _load_block(source: TensorSource, config: Config, layer: int, device: jax.Device) -> Block:
    """One layer: each field of Block that the file has, or that it must have."""
    present: dict[str, Linear | Array] = {}
    for field, name, shape in layer_tensors(source.file, config, layer):
        if field == "attn_kv_b":
            present |= source.key_and_value_maps(name, shape, config.layer(layer), device)
        elif field in LINEAR:
            present[field] = source.linear(name.removesuffix(".weight"), shape, device)
        else:
            present[field] = source.array(name, shape, device)
    return Block(**present)


def layer_tensors(file: GGUF, config: Config, layer: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Fields that a layer has or must have, with their tensors' names and shapes."""
    names = {field: tensor_name(config.family, layer, field) for field in (*ARRAYS, *LINEAR)}

    def has(field: str) -> bool:
        return names[field] in file.tensors

    def width_of(field: str) -> int:
        return file.tensors[names[field]].shape[-1] if has(field) else 0

    kind = config.layer(layer)
    sizes, needed = Sizes(config, kind, width_of, has), required(config, kind, has)
    for field in names:
        name, shape = names[field], LINEAR.get(field) or ARRAYS[field]
        if name is not None and (name in file.tensors or field in needed):
            yield field, name, shape(sizes)


def rope_factors(file: GGUF, config: Config, ctx_size: int) -> str | None:
    """The tensor of frequency factors that applies, if any."""
    if config.rope.scaling is Scaling.LONGROPE or "rope_factors_long.weight" in file.tensors:
        long = ctx_size > config.rope.original_context_length
        name = "rope_factors_long.weight" if long else "rope_factors_short.weight"
    else:
        name = "rope_freqs.weight"
    return name if name in file.tensors else None
