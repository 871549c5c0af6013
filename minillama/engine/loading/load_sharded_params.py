"""Load `Params` whose matrices are sharded over devices by the PartitionSpec of each field."""

import math
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from minillama.array_types import UInt8
from minillama.engine.loading.load_params import (
    PER_LAYER,
    Advance,
    find_tensor,
    layer_tensors,
    rope_factors,
    scale_name,
)
from minillama.engine.loading.split_kv_b import split_kv_b
from minillama.errors import OptionError
from minillama.gguf import GGUF
from minillama.gguf.types import BLOCKS
from minillama.kernels import Files, Weight, check_supported, reads_in_place
from minillama.kernels.scaled_weight import ScaledWeight
from minillama.model import Block, Config, Linear, Params
from minillama.model.layer_kinds import Attention, LatentAttention, Layer
from minillama.model.params import PerLayerEmbeddings
from minillama.model.tensor_table import LINEAR
from minillama.parallel.sharding.head_assignment import assign_heads
from minillama.parallel.sharding.partition_specs import (
    AXIS,
    COLUMNS,
    HEADS,
    REPLICATED,
    ROWS,
    SPECS,
    head_shards,
)
from minillama.parallel.sharding.recurrent_shards import (
    PICKED_FIELDS,
    load_columns_of_heads,
    load_picked_array,
    load_picked_rows,
)
from minillama.parallel.sharding.shards import (
    RowRange,
    first_row_of_shard,
    load_sharded_matrix,
    load_sharded_vector,
    local_mesh_devices,
    make_sharded,
    pad_rows,
)


@dataclass(frozen=True)
class ShardedLoader:
    """Reads a model for the devices of a mesh of one axis."""

    file: GGUF
    config: Config
    mesh: Mesh
    advance: Advance = lambda size: None

    @property
    def devices(self) -> int:
        """Devices that share every layer."""
        return self.mesh.devices.size

    @cached_property
    def _files(self) -> Files:
        return Files(self.file.mapped)

    def load(self, ctx_size: int) -> Params:
        """All parameters; raises what `load_params` does, and OptionError where columns do not divide."""
        config = self.config
        shape = config.vocab_size, config.embedding_length
        share = math.ceil(config.vocab_size / self.devices)
        tied = "output.weight" not in self.file.tensors
        head = self._linear("token_embd" if tied else "output", shape, ROWS, share)
        device = local_mesh_devices(self.mesh)[0][1]
        if reads_in_place(device, find_tensor(self.file, "token_embd.weight", shape).type):
            table = self._linear("token_embd", shape, REPLICATED, shape[0]).weight  # each device reads some rows of it
        else:
            table = head.weight if tied else self._linear("token_embd", shape, ROWS, share).weight
        factors = rope_factors(self.file, config, ctx_size)
        biased = "output_norm.bias" in self.file.tensors
        return Params(
            token_embd=table,
            blocks=tuple(self._block(layer) for layer in range(config.block_count)),
            output_norm=self._array(f"{config.family.output_norm}.weight", shape[1:]),
            output_norm_bias=self._array("output_norm.bias", shape[1:]) if biased else None,
            output=head,
            rope_factors=None if factors is None else self._array(factors, (config.rope.dimension_count // 2,)),
            per_layer=self._per_layer(),
        )

    def _per_layer(self) -> PerLayerEmbeddings | None:
        """The per-layer embeddings, the same on every device; None in models without."""
        if not (size := self.config.per_layer_length):
            return None
        rows, (table, model_proj, proj_norm) = self.config.block_count * size, PER_LAYER
        vocab, width = self.config.vocab_size, self.config.embedding_length
        return PerLayerEmbeddings(
            self._linear(table, (vocab, rows), REPLICATED, vocab).weight,
            self._linear(model_proj, (rows, width), REPLICATED, rows),
            self._array(f"{proj_norm}.weight", (size,)),
        )

    def _block(self, layer: int) -> Block:
        """One layer.

        Tensors that hold the rows of several matrices are taken apart: a device needs some of each.
        """
        kind, tensors = self.config.layer(layer), list(layer_tensors(self.file, self.config, layer))
        heads = kind if isinstance(kind, Attention) else self.config.attention
        queries = heads.head_count * heads.key_length * (2 if heads.has_gate else 1)
        keys = heads.head_count_kv * heads.key_length
        values, is_gated = heads.head_count_kv * heads.value_length, self.config.family.gated
        kv_shards = assign_heads(heads, self.devices).kv_shards
        fields = {field for field, _, _ in tensors}
        present: dict[str, Linear | Array] = {}
        for field, name, shape in tensors:
            if field == "attn_kv_b":
                present |= self._key_and_value_maps(name, shape, kind)
                continue
            if field in PICKED_FIELDS.get(type(kind), ()):
                present[field] = self._picked(field, name, shape, kind)
                continue
            if field not in LINEAR:
                present[field] = self._array(name, shape, SPECS[field])
                continue
            parts = {field: shape[-2]}
            if field == "attn_qkv":
                parts = {"attn_q": queries, "attn_k": keys, "attn_v": values}
            elif field == "ffn_up" and "ffn_gate" not in fields and is_gated:
                parts = {"ffn_gate": shape[0] // 2, "ffn_up": shape[0] // 2}
            elif field == "ffn_gate_up_exps":
                parts = {"ffn_gate_exps": shape[1] // 2, "ffn_up_exps": shape[1] // 2}
            first = 0
            for part, rows in parts.items():
                size = self._size(layer, part, rows if SPECS[part] == ROWS else shape[-1])
                shares = kv_shards if part in ("attn_k", "attn_v") else None
                present[part] = self._linear(
                    name.removesuffix(".weight"), shape, SPECS[part], size, first, rows, shares
                )
                first += rows
        return Block(**present)

    def _picked(self, field: str, name: str, shape: tuple[int, ...], kind: Layer) -> Linear | Array:
        """A field of a recurrent layer, as each device needs it for its heads."""
        tensor = find_tensor(self.file, name, shape)
        self.advance(tensor.nbytes)
        if field not in LINEAR:
            return load_picked_array(tensor, kind, field, self.mesh)
        check_supported(tensor)
        load = load_columns_of_heads if SPECS[field] == COLUMNS else load_picked_rows
        return Linear(self._scaled(load(tensor, kind, field, self.mesh), name.removesuffix(".weight"), shape))

    def _size(self, layer: int, field: str, whole: int) -> int:
        """Rows or columns of a device's shard of a field of this size."""
        devices = self.devices
        sizes = head_shards(self.config.layer(layer), devices)
        if field in sizes:
            return sizes[field]
        if not field.startswith("ffn_") or SPECS[field] == REPLICATED:
            return whole
        for ending in ("_exps", "_shexp", ""):  # columns stay together block by block, and so do the rows before them
            if field.endswith(ending):
                block, _ = BLOCKS[self.file.tensors[f"blk.{layer}.ffn_down{ending}.weight"].type]
                return math.ceil(whole / block / devices) * block
        raise AssertionError(field)

    def _linear(
        self,
        name: str,
        shape: tuple[int, ...],
        spec: PartitionSpec,
        size: int,
        first: int = 0,
        rows: int | None = None,
        shares: int | None = None,
    ) -> Linear:
        """Some rows of a tensor, and of its bias.

        shares: number of distinct parts, where devices have key/value heads in common; None for one a device.
        """
        tensor = find_tensor(self.file, f"{name}.weight", shape)
        check_supported(tensor)
        block, _ = BLOCKS[tensor.type]
        if spec == COLUMNS and size % block:
            raise OptionError(
                f"{tensor.name}: a share of {size} columns is no whole number of {tensor.type.name} blocks of {block}, "
                f"so {self.devices} devices are too many; use fewer, or split_mode=layer"
            )
        rows = shape[-2] if rows is None else rows
        shares = shares or self.devices
        part = RowRange(tensor, first, rows)
        weight = load_sharded_matrix(part, self._files, spec, self.mesh, size, shares)
        weight = self._scaled(weight, name, shape)
        self.advance(tensor.nbytes * rows // shape[-2])
        bias = None
        if f"{name}.bias" in self.file.tensors:
            bias = self._bias(f"{name}.bias", shape[:-1], spec, first, rows, size, shares)
        return Linear(weight, bias)

    def _key_and_value_maps(self, name: str, shape: tuple[int, ...], layer: LatentAttention) -> dict[str, Linear]:
        """The two maps in `attn_kv_b`, of each device's heads."""
        tensor, share = find_tensor(self.file, name, shape), layer.head_count // self.devices
        self.advance(tensor.nbytes)

        def of_device(index: int, device: jax.Device) -> tuple[Weight, Weight]:
            return split_kv_b(tensor, layer, range(index * share, (index + 1) * share), device)

        k_b, v_b = make_sharded(self.mesh, PartitionSpec(AXIS), of_device)
        return {"attn_k_b": Linear(k_b), "attn_v_b": Linear(v_b)}

    def _scaled(self, weight: Weight, name: str, shape: tuple[int, ...]) -> Weight:
        """A matrix of this name and shape with its scale, if the file has one."""
        scale = scale_name(self.file, name)
        return weight if scale is None else ScaledWeight(weight, self._array(scale, shape[:-2] or (1,)))

    def _array(self, name: str, shape: tuple[int, ...], spec: PartitionSpec = REPLICATED) -> Array:
        """A float array, the same on every device, or the numbers of its heads."""
        tensor, devices = find_tensor(self.file, name, shape), self.devices
        self.advance(tensor.nbytes)
        if spec != HEADS:
            return load_sharded_vector(tensor, self.mesh, None, shape)
        return load_sharded_vector(tensor, self.mesh, lambda raw, place: raw.reshape(devices, -1)[place])

    def _bias(
        self, name: str, shape: tuple[int, ...], spec: PartitionSpec, first: int, rows: int, piece: int, shares: int
    ) -> Array:
        """A bias, or one of each expert, cut like the rows.

        Behind columns it is added by one device only.
        """
        tensor = find_tensor(self.file, name, shape)
        self.advance(tensor.nbytes * rows // shape[-1])

        def cut(raw: UInt8[np.ndarray, "bytes"], place: int) -> UInt8[np.ndarray, "piece"]:
            if spec != ROWS:
                return raw if place == 0 else np.zeros_like(raw)
            mine = raw.reshape(*shape, -1)[..., first : first + rows, :]
            return pad_rows(mine, first_row_of_shard(place, self.devices, shares, piece), piece).reshape(-1)

        own = (*shape[:-1], piece if spec == ROWS else shape[-1])
        return load_sharded_vector(tensor, self.mesh, None if spec == REPLICATED else cut, own)
