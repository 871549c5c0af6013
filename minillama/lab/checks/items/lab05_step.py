"""Graded item of lab 05: attention on a fixed-size cache, compiled once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from minillama.errors import first_line
from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, as_array, compared, graded
from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import message, translate

LAB = "05"
HEAD, ROOM = 8, 12


def _step(keys: np.ndarray, values: np.ndarray, length: int, query: np.ndarray, key: np.ndarray, value: np.ndarray,
          *, seen: int = 1, scale: float = HEAD**0.5, zeros: bool = False, late: bool = False,
          ) -> np.ndarray:  # fmt: skip
    """Attention of one token to the first `length + seen` positions.

    zeros: mask with 0 in place of -infinity. late: mask the weights after the softmax."""
    keys, values = np.array(keys, np.float64), np.array(values, np.float64)
    keys[length], values[length] = key, value
    scores = keys @ query / scale
    hidden = np.arange(len(keys)) >= length + seen
    if late:
        weights = np.exp(scores - scores.max())
        return np.where(hidden, 0.0, weights / weights.sum()) @ values
    scores[hidden] = 0.0 if zeros else -np.inf
    with np.errstate(invalid="ignore"):  # a mistake may mask every position
        weights = np.exp(scores - scores.max())
        return weights / weights.sum() @ values


@graded(LAB, "3. one compile only")
def step(answer: Answer) -> str:
    """`step(keys, values, length, query, key, value) -> (output, keys, values)`, compiled once for all lengths."""
    random = hidden_random(505)
    traces = 0

    def counted(*arguments: jax.Array) -> object:
        nonlocal traces
        traces += 1
        return answer(*arguments)

    compiled = jax.jit(counted)
    # Rows from `length` on are unspecified, and not zero. The dtype is explicit: a weak type would refuse
    # `lax.dynamic_update_slice`, which needs equal dtypes, and would change after the first call.
    keys = values = jnp.full((ROOM, HEAD), 9.0, jnp.float32)
    mirror = np.array(keys), np.array(values)
    for length in range(ROOM):
        query, key, value = (random.normal(size=HEAD).astype(np.float32) for _ in range(3))
        label = translate("length {length}", length=length)
        arguments = keys, values, jnp.int32(length), jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
        got = _compiled_call(compiled, arguments, label)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise NotYet("return three things: the output, the new keys, the new values")
        output, keys, values = got
        if any(getattr(part, "shape", None) != (ROOM, HEAD) for part in (keys, values)):
            text = translate(
                "the keys came back as {got} and went in as {wanted}: a "
                "cache that grows has a new shape every token, and every new shape is compiled anew",
                got=getattr(keys, "shape", type(keys).__name__), wanted=(ROOM, HEAD),
            )  # fmt: skip
            raise NotYet(text)
        expected = [as_array.copy() for as_array in mirror]
        expected[0][length], expected[1][length] = key, value
        if not (np.allclose(keys, expected[0]) and np.allclose(values, expected[1])):
            raise NotYet(_why_other_cache(np.array(keys), mirror[0], expected[0], length))
        _compare_output(np.asarray(output, np.float64), mirror, length, query, key, value)
        mirror = expected[0], expected[1]
    if traces != 1:
        text = translate(
            "compiled {traces} times for {count} lengths: shapes and types must be the same every time",
            traces=traces,
            count=ROOM,
        )
        raise NotYet(text)
    return translate("{count} lengths, 1 compile.", count=ROOM)


def _compiled_call(compiled: Answer, arguments: tuple[jax.Array, ...], label: str) -> object:
    try:
        return compiled(*arguments)
    except NotImplementedError:
        raise NotYet("still the empty stub; fill in the cell above, run it, then run this cell again") from None
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerBoolConversionError, IndexError) as problem:
        text = translate(
            "`length` is known only when the program runs, so no shape and no `if` can depend on it (`keys[:length]`): "
            "keep all {count} positions and mask what is not there ({error})",
            count=ROOM, error=type(problem).__name__,
        )  # fmt: skip
        raise NotYet(text) from None
    except jax.errors.TracerArrayConversionError:
        raise NotYet("numpy cannot work on what JAX traces: use jnp in place of np") from None
    except TypeError as problem:
        if "item assignment" in str(problem):
            raise NotYet("JAX's arrays do not change: keys = keys.at[length].set(key) gives a new one") from None
        raise NotYet(_raised(problem, label)) from None
    except Exception as problem:
        raise NotYet(_raised(problem, label)) from None


def _raised(problem: Exception, label: str) -> str:
    return translate("your function raised {error} ({label})", error=first_line(problem, with_type=True), label=label)


def _why_other_cache(got: np.ndarray, before: np.ndarray, want: np.ndarray, length: int) -> str:
    if np.allclose(got, before):
        return message("the new key is not in the returned cache: keys.at[length].set(key) *returns* it")
    if length + 1 < ROOM and np.allclose(got[length + 1], want[length]):
        return message("the new key is one row too far: the first free row is `length`, because counting starts at 0")
    return translate("at length {length} only row {length} of keys and values may change", length=length)


STEP_MISTAKES = (
    Mistake(
        "positions after `length` are attended to; mask them: jnp.where(..., scores, -jnp.inf)",
        partial(_step, seen=ROOM),
    ),
    Mistake(
        "a masked score of 0 still counts, because exp(0) is 1: mask with -jnp.inf, before the softmax",
        partial(_step, zeros=True),
    ),
    Mistake(
        "masked after the softmax: the weights no longer add up to 1; mask the scores with -jnp.inf before it",
        partial(_step, late=True),
    ),
    Mistake("one position too many is attended to: the newest is at `length`", partial(_step, seen=2)),
    Mistake("the token must see itself: positions up to and including `length`", partial(_step, seen=0)),
    Mistake("divide the scores by the square root of the head size (lab 03)", partial(_step, scale=1.0)),
)


def _compare_output(
    got: np.ndarray,
    mirror: tuple[np.ndarray, np.ndarray],
    length: int,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
) -> None:
    def outcome(attend: Answer) -> np.ndarray:
        return as_array(attend(*mirror, length, query, key, value))

    comparison = compared(Comparison(outcome, _step, STEP_MISTAKES, 1e-3))
    if comparison.accepts(got):
        return
    if hint := comparison.hint(got):
        raise NotYet(hint)
    if not np.all(np.isfinite(got)):
        text = message("nan or infinity at length {length}: is every position masked? The token itself must be seen")
        raise NotYet(translate(text, length=length))
    text = message("wrong output at length {length}: softmax of keys @ query / sqrt({size}), times the values")
    raise NotYet(translate(text, length=length, size=HEAD))
