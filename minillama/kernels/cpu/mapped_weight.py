"""Weights that stay where they are: bytes of the mapped file, and products by kernels that read them as they lie.

All weights of a file share one array, the file itself, for each array that a program is given costs every call of it
some microseconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from gguf import GGMLQuantizationType as Type
from jax import Array
from jaxtyping import Float, Int, UInt8

from minillama import env
from minillama.gguf.types import row_bytes
from minillama.kernels.cpu.matmul import gemm_amx
from minillama.kernels.cpu.matmul.activations import PANEL, PanelLayout, RowLayout
from minillama.kernels.cpu.matmul.formats import FORMATS
from minillama.kernels.cpu.matmul.gemm import BUFFER_ROWS
from minillama.kernels.cpu.runtime.ffi_handlers import MAX_MATRICES, PAGE, Plan
from minillama.kernels.cpu.runtime.registry import (
    GEMV_ROLES,
    GEMV_TOKENS,
    Role,
    activation_terms,
    chosen_isa,
    kernel_number,
    load_kernels,
)
from minillama.kernels.load_weights import ALIGNMENT
from minillama.kernels.weight import Weight

_TASK_BYTES = 1 << 18  # of weights that a thread takes at a time when decoding
_LEAST_TASKS = 16  # of a matrix, so that threads end together
_TASKS_OF_THREAD = 4  # of many tokens in tiles, where larger tasks read the activations less often


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MappedWeight(Weight):
    """A matrix or a stack of experts as it lies in the file; `offset` bytes stand before its first row.

    Where several devices share it, each one's rows of each matrix are a matrix of the stack: of `shares` a matrix.
    """

    memory: UInt8[Array, "bytes"]  # of the whole file
    kind: Type = field(metadata={"static": True})
    sizes: tuple[int, ...] = field(metadata={"static": True})
    offset: int = field(metadata={"static": True})
    shares: int = field(default=1, metadata={"static": True})
    index: Int[Array, ""] | None = None  # of the expert that is meant, or of the device's share

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes if self.index is None else self.sizes[1:]

    @property
    def row_bytes(self) -> int:
        """From one row to the next."""
        return row_bytes(self.sizes[-1], self.kind)

    def expert(self, index: Int[Array, ""]) -> "MappedWeight":
        share = 0 if self.index is None else self.index
        return replace(self, index=index.astype(jnp.int32) * self.shares + share)

    def device_shard(self, place: Int[Array, ""], devices: int) -> "MappedWeight":
        return self if self.shares == 1 else replace(self, index=place * self.shares // devices)

    def product(self, x: Float[Array, "T K"]) -> Float[Array, "T N"]:
        return multiply(x, [self])[0]

    def products(
        self, x: Float[Array, "T K"], others: Sequence[Weight], n_valid: Int[Array, ""] | None = None
    ) -> list[Float[Array, "T N"]]:
        if all(isinstance(weight, MappedWeight) for weight in others) and len(others) < MAX_MATRICES:
            return multiply(x, [self, *others], n_valid)
        return super().products(x, others, n_valid)

    def rows(self, ids: Int[Array, "n"]) -> Float[Array, "n K"]:
        count, width = self.sizes[-2:]
        plan = Plan(
            kernel=kernel_number(self.kind, Role.EMBED), rows=math.prod(self.sizes[:-1]), width=width,
            row_bytes=self.row_bytes, page=self.offset // PAGE, skip=self.offset % PAGE, tokens=ids.shape[0],
        )  # fmt: skip
        out = jax.ShapeDtypeStruct((ids.shape[0], width), jnp.float32)
        ids = jnp.clip(ids.astype(jnp.int32), 0, count - 1)
        if self.index is not None:
            ids = ids + self.index.astype(jnp.int32) * count
        return jax.ffi.ffi_call("minillama_rows", out)(_table([plan]), ids, self.memory)


def map_weight(
    memory: UInt8[Array, "bytes"], offset: int, kind: Type, shape: tuple[int, ...], shares: int = 1
) -> MappedWeight:
    """A tensor at an offset in a file's memory, as a weight, without a copy.

    shares: parts of each of its matrices that devices multiply with apart; the rows divide among them.
    """
    load_kernels(kind)
    if shares > 1:
        shape = (math.prod(shape[:-2]) * shares, shape[-2] // shares, shape[-1])
    return MappedWeight(memory, kind, shape, offset, shares)


def multiply(
    x: Float[Array, "T K"], weights: Sequence[MappedWeight], n_valid: Int[Array, ""] | None = None
) -> list[Float[Array, "T N"]]:
    """x Wᵀ for several matrices in one call, whose threads go from one to the next without waiting.

    valid: how many tokens count; of more than `FEW` the others are not multiplied, and come out as zeros.
    """
    tokens, width = x.shape
    few = next((count for count in GEMV_TOKENS if count >= tokens), None)
    if few is not None and few > tokens:
        x = jnp.pad(x, ((0, few - tokens), (0, 0)))
    plans, scratch = _plans(weights, x.shape[0], width)
    count = jnp.int32(x.shape[0]) if few is not None or n_valid is None else n_valid.astype(jnp.int32)
    experts = [jnp.int32(0) if weight.index is None else weight.index.astype(jnp.int32) for weight in weights]
    results = [jax.ShapeDtypeStruct((x.shape[0], weight.sizes[-2]), jnp.float32) for weight in weights]
    results.append(jax.ShapeDtypeStruct((scratch,), jnp.uint8))
    *products, _ = jax.ffi.ffi_call("minillama_product", results)(
        _table(plans), x, jnp.stack([*experts, count]), *(weight.memory for weight in weights)
    )
    return [y[:tokens] for y in products]


def _plans(weights: Sequence[MappedWeight], tokens: int, width: int) -> tuple[list[Plan], int]:
    """What each matrix is told, and the bytes of scratch memory; matrices share activations of one form."""
    if len(weights) > MAX_MATRICES:
        raise ValueError(f"{len(weights)} matrices in one product; at most {MOST_PARTS}")
    plans, places, end = [], {}, 0
    for weight in weights:
        form = FORMATS.get(weight.kind)
        few, parts = tokens in GEMV_TOKENS, activation_terms(weight.kind, chosen_isa())
        shape = None if form is None else (form.group, form.permutation if few else form.zero_point)
        if few:
            role, prepare, unit = GEMV_ROLES[tokens], Role.PREPARE_GEMV, 1
            size = 0 if form is None else tokens * RowLayout(width, form.group).size
            task_rows = max(8, min(_TASK_BYTES // weight.row_bytes, weight.sizes[-2] // _LEAST_TASKS))
        elif parts is not None:
            role, prepare, unit, shape = Role.GEMM, Role.PREPARE_GEMM, gemm_amx.TOKENS, parts
            size = -(-tokens // unit) * gemm_amx.TileLayout(width, parts).size
            share = weight.sizes[-2] // (_TASKS_OF_THREAD * env.thread_limits()[1])
            task_rows = min(gemm_amx.BUFFER_ROWS, max(gemm_amx.ROWS, share // gemm_amx.ROWS * gemm_amx.ROWS))
        else:
            role, prepare, unit = Role.GEMM, Role.PREPARE_GEMM, PANEL
            size = -(-tokens // unit) * (4 * width * PANEL if form is None else PanelLayout(width, form.group).size)
            task_rows = min(BUFFER_ROWS, max(8, weight.sizes[-2] // 32 // 8 * 8))
        fresh = shape not in places and size > 0
        if fresh:
            places[shape], end = end, end + size // ALIGNMENT + 2
        plans.append(
            Plan(
                kernel=kernel_number(weight.kind, role),
                rows=weight.sizes[-2],
                width=width,
                row_bytes=weight.row_bytes,
                page=weight.offset // PAGE,
                skip=weight.offset % PAGE,
                tokens=tokens,
                task_rows=task_rows,
                prepare=kernel_number(weight.kind, prepare) if fresh else -1,
                unit=unit,
                place=places[shape] if size else -1,
                many=int(not few),
            )
        )
    return plans, max(1, end) * ALIGNMENT


def _table(plans: Sequence[Plan]) -> Array:
    return jnp.asarray(np.array([plan.row() for plan in plans], np.int32))
