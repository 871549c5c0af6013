"""Graded item of lab 16: the gated delta rule, token after token."""

from collections.abc import Callable
from functools import partial

import numpy as np

from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, as_array, call, compared, graded
from minillama.lab.grading.course_seed import hidden_seed
from minillama.lab.language import message, translate
from minillama.lab.layer_costs.delta_texts import delta_text

LAB = "16"
TOLERANCE = 1e-6
Arrays = tuple[np.ndarray, np.ndarray]


def rule(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, g: np.ndarray, beta: np.ndarray, memory: np.ndarray, *,
    decays: bool = True, late: bool = False, stale: bool = False, writes: float | None = None, erases: bool = True,
    early: bool = False, by_key: bool = False, adds_value: bool = False, forgets: bool = False, logarithm: bool = False,
    first: bool = False,
) -> Arrays:  # fmt: skip
    """Results of the queries, and the memory after them; each keyword makes one mistake."""
    found = np.zeros(v.shape)
    start = memory
    memory = np.zeros_like(memory) if forgets else memory.astype(float)
    for t in range(len(v)):
        keep = (np.exp(g[t]) if logarithm else g[t]) if decays else 1.0
        kept = memory if late else keep * memory
        old = memory @ k[t] if stale else kept @ k[t]
        strength = beta[t] if writes is None else writes
        change = strength * v[t] - old if adds_value else strength * (v[t] - (old if erases else 0))
        after = kept + np.outer(change, k[t])
        after = keep * after if late else after
        read = memory if early else after
        found[t] = read.T @ q[t] if by_key else read @ q[t]
        memory = after
    return found, start if first else memory


def _with(**mistake: object) -> Callable[..., Arrays]:
    return partial(rule, **mistake)  # type: ignore[arg-type]


DELTA_MISTAKES = (
    Mistake("the memory fades before each token: multiply it by g[t]", _with(decays=False)),
    Mistake("g is the share that stays, not its logarithm: no exp", _with(logarithm=True)),
    Mistake("the memory fades *before* the token is written: the new value comes in full", _with(late=True)),
    Mistake("read the old value from the memory that has faded already", _with(stale=True)),
    Mistake("what the key finds already is taken away: write beta (v - M k), not beta v", _with(erases=False)),
    Mistake("beta is the strength of the whole change, v - M k", _with(adds_value=True)),
    Mistake("beta is missing: only this share of the change is written", _with(writes=1.0)),
    Mistake("the query reads after the token has been written", _with(early=True)),
    Mistake("the query meets the keys' side: M q, not the transposed matrix", _with(by_key=True)),
    Mistake("the text may be the rest of a longer one: begin with `memory`, not with zeros", _with(forgets=True)),
    Mistake("return the memory *after* the last token", _with(first=True)),
)


@graded(LAB, "3. the gated delta rule")
def delta_rule(answer: Answer) -> str:
    """`delta_rule(q, k, v, g, beta, memory) -> (found [T, V], memory [V, K])`, and any split."""
    cases = {
        message("a text"): (1601, 9, 6, 6),
        message("values longer than keys"): (1602, 5, 4, 7),
        message("one token"): (1603, 1, 5, 5),
    }
    for case, (seed, tokens, size, values) in cases.items():
        seed = hidden_seed(seed)
        begun = np.random.default_rng(seed).standard_normal((values, size))
        inputs = (*delta_text(seed, tokens, size, values).part(0), begun)
        comparison = compared(Comparison(partial(_outcome, inputs), rule, DELTA_MISTAKES, TOLERANCE))
        got = _joined(call(answer, *inputs, case=case), case, (tokens, values), begun.shape)
        if not comparison.accepts(got):
            raise NotYet(comparison.hint(got) or _difference(got, comparison.outcome(rule), tokens * values, case))
    return "what the queries find and the memory agree, from any memory that a text begins with."


def _outcome(inputs: tuple[np.ndarray, ...], function: Answer) -> np.ndarray:
    """Both results as one row; a value for each mistake that fails on these shapes."""
    try:
        found, memory = function(*(each.copy() for each in inputs))
    except ValueError:  # a transposed matrix that is not square
        return np.zeros(0)
    return np.concatenate([np.ravel(found), np.ravel(memory)])


def _joined(got: object, case: str, found: tuple[int, ...], memory: tuple[int, ...]) -> np.ndarray:
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise NotYet("return two arrays: what the queries find, and the memory after the text")
    arrays = [as_array(each) for each in got]
    for name, array, shape in zip((message("found"), message("the memory")), arrays, (found, memory), strict=True):
        if array.shape != shape:
            raise NotYet(
                translate(
                    "{name} has the shape {got} and should have {want} for {case}",
                    name=translate(name), got=array.shape, want=shape, case=translate(case),
                )
            )  # fmt: skip
    return np.concatenate([np.ravel(each) for each in arrays])


def _difference(got: np.ndarray, want: np.ndarray, numbers: int, case: str) -> str:
    if not np.all(np.isfinite(got)):
        return translate("the result holds nan or infinity for {case}", case=translate(case))
    parts = (message("what the queries find"), slice(0, numbers)), (message("the memory"), slice(numbers, None))
    wrong = [translate(name) for name, part in parts if not np.allclose(got[part], want[part], atol=TOLERANCE)]
    names = translate(" and ").join(wrong)
    return translate("wrong numbers for {case}: {names}", case=translate(case), names=names)
