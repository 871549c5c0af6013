"""Graded item of lab 17: the product in Pallas, interpreted."""

from functools import wraps

import jax.numpy as jnp
import numpy as np

from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, call, compared, graded, is_close
from minillama.lab.grading.course_seed import hidden_random, hidden_seed
from minillama.lab.language import translate
from minillama.lab.own_kernels.pallas_products import pallas_product
from minillama.lab.own_kernels.traced_kernels import random_blocks

LAB = "17"
CASES = ((12, 96, 4),)  # rows, width, rows of a tile


def _kernel(
    scales, quants, x, y, *, zero_point: int = 8, scaled: bool = True, crossed: bool = False, woven: bool = False,
    mean: bool = False, axes: tuple[int, ...] | None = (1, 2),
) -> None:  # fmt: skip
    """The right kernel; each keyword makes one mistake."""
    raw = quants[...]
    halves = [raw >> 4, raw & 15] if crossed else [raw & 15, raw >> 4]
    codes = jnp.stack(halves, -1).reshape(*raw.shape[:2], 32) if woven else jnp.concatenate(halves, -1)
    weights = codes.astype(jnp.float32) - zero_point
    if scaled:
        weights = weights * scales[...][..., None]
    products = weights * x[...][None]
    total = products.mean((1, 2)) if mean else products.sum(axes)
    y[...] = jnp.broadcast_to(total, y.shape)


def _wrapped(scales, quants, x, y) -> None:
    raw = quants[...]
    codes = jnp.concatenate([raw & 15, raw >> 4], -1) - jnp.uint8(8)
    y[...] = (codes.astype(jnp.float32) * scales[...][..., None] * x[...][None]).sum((1, 2))


PALLAS_MISTAKES = (
    Mistake("codes are 0 to 15: subtract the zero point 8", lambda *refs: _kernel(*refs, zero_point=0)),
    Mistake("bytes below 8 wrap: convert to float32 before you subtract", _wrapped),
    Mistake("multiply each block with its scale: scales[...][..., None]", lambda *refs: _kernel(*refs, scaled=False)),
    Mistake("the low four bits are the first 16 weights of a block", lambda *refs: _kernel(*refs, crossed=True)),
    Mistake("the 16 low codes come first, then the 16 high ones: they do not alternate",
            lambda *refs: _kernel(*refs, woven=True)),
    Mistake("one number for each row: sum over the axes 1 and 2, not over the rows",
            lambda *refs: _kernel(*refs, axes=None)),
    Mistake("a dot product is the sum, not the mean", lambda *refs: _kernel(*refs, mean=True)),
)  # fmt: skip


@graded(LAB, "5. the same in Pallas")
def pallas_kernel(answer: Answer) -> str:
    """`pallas_kernel(scales, quants, x, y)`: writes the products of a tile of rows to y."""
    for rows, width, tile in CASES:
        weights = random_blocks(rows, width, hidden_seed(rows))
        x = hidden_random(width).standard_normal(width).astype(np.float32)

        def outcome(body: Answer, weights: np.ndarray = weights, x: np.ndarray = x, tile: int = tile) -> np.ndarray:
            return pallas_product(body, weights, x, tile=tile)

        @wraps(answer)
        def run_it(outcome: Answer = outcome) -> object:
            return outcome(answer)

        case = translate("tiles of {tile} rows", tile=tile)
        got = call(run_it, case=case)
        comparison = compared(Comparison(outcome, _kernel, PALLAS_MISTAKES, 1e-5))
        want = outcome(_kernel)
        if not isinstance(got, np.ndarray) or not is_close(got, want, 1e-5):
            is_array = isinstance(got, np.ndarray)
            shown = (
                translate("row 0 is {got:.6g}, and should be {want:.6g}", got=got[0], want=want[0]) if is_array else got
            )
            wrong = translate(
                "wrong value for {case}: {shown}; is every element of y written, as in y[...] = ...?",
                case=case, shown=shown,
            )  # fmt: skip
            raise NotYet(comparison.hint(got) or wrong)
    return "one program for each tile of rows; the grid and the tiles are the only loops."
