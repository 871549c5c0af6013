"""Graded items of lab 16: queries for latents, and the rotation of heads."""

from collections.abc import Callable

import numpy as np

from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_random, hidden_seed
from minillama.lab.language import translate
from minillama.lab.layer_costs.written_out_latents import latent_step

LAB = "16"
Array = np.ndarray


def right_absorb(q: Array, w_k: Array) -> Array:
    """W_kᵀ q of each head, then the part of the query that rotates."""
    nope = w_k.shape[1]
    return np.concatenate([np.einsum("ND,NDR->NR", q[:, :nope], w_k), q[:, nope:]], axis=-1)


def _parts(q: Array, w_k: Array) -> tuple[Array, Array]:
    nope = w_k.shape[1]
    return np.einsum("ND,NDR->NR", q[:, :nope], w_k), q[:, nope:]


ABSORB_MISTAKES = (
    Mistake("the rotated part of the query is missing: it goes unchanged after the other",
            lambda q, w: _parts(q, w)[0]),
    Mistake("the rotated part comes last, as in the rows of the cache",
            lambda q, w: np.concatenate(_parts(q, w)[::-1], axis=-1)),
    Mistake("the rotated part of a query is at its end; the first numbers go through the matrix",
            lambda q, w: right_absorb(np.roll(q, w.shape[1], axis=-1), w)),
    Mistake("each head has its own matrix; this takes the first for all",
            lambda q, w: right_absorb(q, np.broadcast_to(w[:1], w.shape))),
    Mistake("each head has its own matrix: no sum or mean over heads",
            lambda q, w: right_absorb(q, np.broadcast_to(w.mean(0, keepdims=True), w.shape))),
    Mistake("do not scale here: the scores are scaled afterwards, as with keys",
            lambda q, w: right_absorb(q, w) / np.sqrt(q.shape[-1])),
    Mistake("the heads are on the first axis: [heads, rank + rope]", lambda q, w: right_absorb(q, w).T),
)  # fmt: skip


@graded(LAB, "4. queries for latents")
def absorb(answer: Answer) -> str:
    """`absorb(q, w_k) -> [heads, rank + rope]`, whose products with rows are those with keys."""
    for seed, sizes in ((1604, (3, 5, 2, 7)), (1605, (4, 6, 3, 6)), (1606, (1, 2, 2, 4))):
        heads, nope, turning, rank = sizes
        step = latent_step(hidden_seed(seed), 1, heads, nope, turning, rank)
        case = translate(
            "{heads} heads, keys of {nope} + {turning}, latents of {rank}",
            heads=heads, nope=nope, turning=turning, rank=rank,
        )  # fmt: skip
        expect_equal(answer, (step.q, step.w_k), right_absorb, ABSORB_MISTAKES, tolerance=1e-6, case=case)
    return "one product with each head's matrix a step, and none a token."


# ---- the rotation ----


def _butterflies(x: Array, steps: int | None = None) -> Array:
    """Sums and differences at all scales, without the factor; `steps` scales if given."""
    out, width, size = np.array(x, dtype=float), 1, x.shape[-1]
    while width < size and (steps is None or steps > 0):
        pairs = out.reshape(*x.shape[:-1], -1, 2, width)
        out = np.concatenate([pairs[..., :1, :] + pairs[..., 1:, :], pairs[..., :1, :] - pairs[..., 1:, :]], axis=-2)
        out, width, steps = out.reshape(x.shape), 2 * width, None if steps is None else steps - 1
    return out


def right_rotated(x: Array) -> Array:
    """The Walsh-Hadamard matrix times the last axis, over sqrt(n)."""
    return _butterflies(x) / np.sqrt(x.shape[-1])


def _with_sign(change: Callable[[Array, Array], Array]) -> Answer:
    """The product with a matrix of other signs: `change(row, column)` is the exponent of -1."""

    def wrong(x: Array) -> Array:
        size = x.shape[-1]
        rows, columns = np.arange(size)[:, None], np.arange(size)[None]
        return x @ ((-1.0) ** change(rows, columns)).T / np.sqrt(size)

    return wrong


ROTATED_MISTAKES = (
    Mistake("lengths must stay: divide by sqrt(n)", _butterflies),
    Mistake("divide by sqrt(n), not by n: twice must be nothing", lambda x: _butterflies(x) / x.shape[-1]),
    Mistake("one scale is not enough: go on with steps 2, 4, ... up to n / 2",
            lambda x: _butterflies(x, 1) / np.sqrt(2)),
    Mistake("the last scale is missing: the step n / 2 mixes both halves",
            lambda x: _butterflies(x, int(np.log2(x.shape[-1])) - 1) / np.sqrt(x.shape[-1])),
    Mistake("the sign is the parity of the number of *common* bits of row and column, not of their product",
            _with_sign(lambda i, j: i * j % 2)),
    Mistake("the difference is the first minus the second", lambda x: right_rotated(x) * (-1) ** _bits(x.shape[-1])),
    Mistake("rotate the last axis, not the first", lambda x: right_rotated(x.T).T if _is_power(len(x)) else x),
    Mistake("these are random signs only: nothing is spread yet", lambda x: x * (-1) ** _bits(x.shape[-1])),
    Mistake("the vector is not changed at all", lambda x: x),
)  # fmt: skip


def _bits(size: int) -> Array:
    """The number of ones in each index."""
    return np.array([index.bit_count() for index in range(size)])


def _is_power(size: int) -> bool:
    return size & (size - 1) == 0


@graded(LAB, "5. the rotation of heads")
def rotated(answer: Answer) -> str:
    """`rotated(x) -> W x / sqrt(n)` along the last axis, n a power of two."""
    random = hidden_random(1607)
    for shape in ((4, 8), (3, 16), (2, 4, 32)):
        case = translate("an array of the shape {shape}", shape=shape)
        expect_equal(
            answer, (random.standard_normal(shape),), right_rotated, ROTATED_MISTAKES, tolerance=1e-6, case=case
        )
    return "every channel is spread over all of them, lengths stay, and twice is nothing."
