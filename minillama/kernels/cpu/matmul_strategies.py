"""Kernels, layout of activations and task size of a product, by its number of tokens."""

from typing import NamedTuple

from gguf import GGMLQuantizationType as Type

from minillama import env
from minillama.gguf.types import row_bytes
from minillama.kernels.cpu.formats import FORMATS
from minillama.kernels.cpu.matmul import activations_amx, gemm, gemm_amx
from minillama.kernels.cpu.matmul.activations import PANEL_TOKENS, PanelLayout, RowLayout
from minillama.kernels.cpu.runtime.registry import GEMV_ROLES, GEMV_TOKENS, Role, activation_terms, chosen_isa

_DECODE_TASK_BYTES = 1 << 18  # weights of a task when decoding
_MIN_TASKS = 16  # of a product, so that all threads finish at about the same time
_TASKS_PER_THREAD = 4  # in a GEMM with AMX tiles, where larger tasks read the activations less often


class Strategy(NamedTuple):
    """A kernel and the preparation of its activations."""

    role: Role
    prepare: Role
    unit: int  # tokens that a preparation task converts
    unit_bytes: int  # of the converted activations of a unit; 0 if the kernel uses them as they are
    layout: object  # equal for matrices that can share converted activations
    task_rows: int

    def scratch_bytes(self, tokens: int) -> int:
        """Bytes of the converted activations."""
        return -(-tokens // self.unit) * self.unit_bytes


def strategy(kind: Type, rows: int, width: int, tokens: int) -> Strategy:
    """The strategy for a matrix [rows, width] of a type."""
    if tokens in GEMV_TOKENS:
        return gemv_strategy(kind, rows, width, tokens)
    return gemm_strategy(kind, rows, width)


def gemv_strategy(kind: Type, rows: int, width: int, tokens: int = 1, parts: int = 1) -> Strategy:
    """Few tokens: 1, 2, 4 or 8.

    parts: matrices like this one in the same call.
    """
    form = FORMATS.get(kind)
    size = 0 if form is None else RowLayout(width, form.group).size
    task_rows = max(8, min(_DECODE_TASK_BYTES // row_bytes(width, kind), rows, rows * parts // _MIN_TASKS))
    layout = None if form is None else (form.group, form.permutation)
    return Strategy(GEMV_ROLES[tokens], Role.PREPARE_GEMV, 1, size, layout, task_rows)


def gemm_strategy(kind: Type, rows: int, width: int) -> Strategy:
    """More tokens."""
    terms = activation_terms(kind, chosen_isa())
    if terms is not None:
        return _amx_strategy(rows, width, terms)
    form = FORMATS.get(kind)
    size = 4 * width * PANEL_TOKENS if form is None else PanelLayout(width, form.group).size
    task_rows = min(gemm.MAX_UNPACKED_ROWS, max(8, rows // 32 // 8 * 8))
    layout = None if form is None else (form.group, form.zero_point)
    return Strategy(Role.GEMM, Role.PREPARE_GEMM, PANEL_TOKENS, size, layout, task_rows)


def _amx_strategy(rows: int, width: int, terms: int) -> Strategy:
    size = activations_amx.TileLayout(width, terms).size
    share = rows // (_TASKS_PER_THREAD * env.thread_limits()[1])
    step = gemm_amx.MICROTILE_ROWS
    task_rows = min(gemm_amx.MAX_UNPACKED_ROWS, max(step, share // step * step))
    return Strategy(Role.GEMM, Role.PREPARE_GEMM, activations_amx.PANEL_TOKENS, size, terms, task_rows)
