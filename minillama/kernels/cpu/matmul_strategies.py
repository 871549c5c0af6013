"""Kernels, layout of activations and task size of a product, by its number of tokens."""

from typing import NamedTuple

from gguf import GGMLQuantizationType as Type

from minillama import env
from minillama.gguf.types import row_bytes
from minillama.kernels.cpu.formats import FORMATS
from minillama.kernels.cpu.matmul import activations_amx, gemm_amx, gemm_neon
from minillama.kernels.cpu.matmul.activations import PanelLayout, RowLayout, code_bytes
from minillama.kernels.cpu.matmul.microtile import Shape
from minillama.kernels.cpu.runtime.kernel_roles import Role, activation_terms
from minillama.kernels.cpu.runtime.registry import chosen_isa
from minillama.kernels.cpu.skinny_gemm import row_blocks
from minillama.kernels.cpu.skinny_gemm.token_tiles import TILE_TOKENS, tile_bytes

DECODE_TOKENS = row_blocks.MAX_TOKENS  # up to this many, each token has the bits that it would have alone
SHORT_PROMPT = 8  # tokens; a longer prompt is multiplied by the GEMM
_DECODE_TASK_BYTES = 1 << 18  # weights of a task when decoding
_MIN_TASKS = 16  # of a product, so that all threads finish at about the same time
_TASKS_PER_THREAD = 4  # in a GEMM with AMX tiles, where larger tasks read the activations less often


class Strategy(NamedTuple):
    """A kernel and the preparation of its activations."""

    role: Role
    prepare: Role
    unit: int  # tokens that a preparation task converts
    panel: int  # tokens that are together in memory
    panel_bytes: int  # of the converted activations of a panel; 0 if the kernel uses them as they are
    layout: object  # equal for matrices that can share converted activations
    task_rows: int

    def scratch_bytes(self, tokens: int) -> int:
        """Bytes of the converted activations."""
        return -(-tokens // self.panel) * self.panel_bytes


def strategy(kind: Type, rows: int, width: int, tokens: int, is_prompt: bool) -> Strategy:
    """The strategy for a matrix [rows, width] of a type."""
    if tokens > (SHORT_PROMPT if is_prompt else DECODE_TOKENS):
        return gemm_strategy(kind, rows, width)
    if tokens > 2:
        return skinny_gemm_strategy(kind, rows, width)
    return gemv_strategy(kind, rows, width)._replace(role=Role.GEMV if tokens == 1 else Role.GEMV_2)


def gemv_strategy(kind: Type, rows: int, width: int, parts: int = 1) -> Strategy:
    """One token; two take another kernel.

    parts: matrices like this one in the same call.
    """
    form = FORMATS.get(kind)
    size = 0 if form is None else RowLayout(width, form.group).size
    layout = None if form is None else (form.group, form.permutation, form.zero_point)
    return Strategy(Role.GEMV, Role.PREPARE_GEMV, 1, 1, size, layout, _decode_task_rows(kind, rows, width, parts))


def skinny_gemm_strategy(kind: Type, rows: int, width: int, parts: int = 1) -> Strategy:
    """Some tokens, at most `DECODE_TOKENS`."""
    form = FORMATS.get(kind)
    size = tile_bytes(width) if form is None else TILE_TOKENS * RowLayout(width, form.group).size
    layout = None if form is None else (form.weights, form.group, form.zero_point)
    task_rows = _decode_task_rows(kind, rows, width, parts)
    return Strategy(Role.SKINNY_GEMM, Role.PREPARE_SKINNY_GEMM, 1, TILE_TOKENS, size, layout, task_rows)


def _decode_task_rows(kind: Type, rows: int, width: int, parts: int) -> int:
    most = min(_DECODE_TASK_BYTES // row_bytes(width, kind), rows, rows * parts // _MIN_TASKS)
    return max(row_blocks.MOST_ROWS, most // row_blocks.MOST_ROWS * row_blocks.MOST_ROWS)


def gemm_strategy(kind: Type, rows: int, width: int) -> Strategy:
    """More tokens."""
    terms = activation_terms(kind, chosen_isa())
    if terms is not None:
        return _amx_strategy(rows, width, terms)
    form, isa = FORMATS.get(kind), chosen_isa()
    shape = Shape.of(isa, is_float=form is None)
    panel, size, layout = shape.panel, 4 * width * shape.panel, None
    if form is not None and isa.is_neon:
        panel, layout = gemm_neon.PANEL_TOKENS, (form.group, form.has_minimum)
        size = gemm_neon.NeonPanel(width, form.group).size
    elif form is not None:
        size, layout = PanelLayout(width, form.group, panel, code_bytes(form, isa)).size, (form.group, form.zero_point)
    return Strategy(Role.GEMM, Role.PREPARE_GEMM, panel, panel, size, layout, shape.task_rows(rows))


def _amx_strategy(rows: int, width: int, terms: int) -> Strategy:
    size, panel = activations_amx.TileLayout(width, terms).size, activations_amx.PANEL_TOKENS
    share = rows // (_TASKS_PER_THREAD * env.thread_limits()[1])
    step = gemm_amx.MICROTILE_ROWS
    task_rows = min(gemm_amx.MAX_UNPACKED_ROWS, max(step, share // step * step))
    return Strategy(Role.GEMM, Role.PREPARE_GEMM, panel, panel, size, terms, task_rows)
