"""Graded items of lab 09: sharded products, PartitionSpecs, bytes sent, break-even."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import PartitionSpec

from minillama.errors import ResourceError
from minillama.lab.checks.items.lab09_specs import collectives_text, specs
from minillama.lab.distributed import virtual_devices
from minillama.lab.distributed.virtual_devices import DEVICES
from minillama.lab.grading.check import (
    Answer,
    Comparison,
    Mistake,
    NotYet,
    Score,
    compared,
    expect_equal,
    graded,
    one_line,
)
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, real, whole
from minillama.lab.grading.equality import is_close
from minillama.lab.language import message, translate
from minillama.measure.limits.collective_traffic import FLOAT_BYTES, Collective, CollectiveKind, tensor_parallel_bytes
from minillama.parallel.sharding.partition_specs import AXIS, COLUMNS, REPLICATED, ROWS

LAB = "09"
TOLERANCE = 1e-4
Arrays = Sequence[np.ndarray]


def _run_on_devices(answer: Answer, specs: Sequence[PartitionSpec], arrays: Arrays) -> virtual_devices.DeviceResults:
    """Run the learner's function on every device; errors become one sentence."""

    def checked(*parts: jax.Array) -> jax.Array:
        got = answer(*parts)
        if not isinstance(got, jax.Array):
            kind = "None" if got is None else type(got).__name__
            raise NotYet(translate("return one array; got {kind}", kind=kind))
        return got

    try:
        return virtual_devices.on_each_device(checked, specs, *arrays)
    except NotYet:
        raise
    except ResourceError as error:
        raise NotYet(str(error)) from None
    except NotImplementedError:
        raise NotYet("still the empty stub; fill in the cell above, run it, then run this cell again") from None
    except Exception as error:
        line = one_line(error)
        if "axis name" in line:
            raise NotYet(translate('{error}: the devices lie along the axis "{axis}"', error=line, axis=AXIS)) from None
        raise NotYet(
            translate(
                "your function raised {error}; each device sees its own part of what is split, so print the shapes",
                error=line,
            )
        ) from None


def _examine(
    found: virtual_devices.DeviceResults, want: np.ndarray, mistakes: Sequence[tuple[str, np.ndarray]]
) -> None:
    """Raise NotYet unless every device has the right result.

    mistakes: pairs of a hint and the results that it explains, device by device."""
    table = [Mistake(hint, lambda wrong=wrong: wrong) for hint, wrong in mistakes]
    comparison = compared(Comparison(lambda result: result(), lambda: _everywhere(want), table, TOLERANCE))
    if hint := comparison.hint(found.results.astype(float)):
        raise NotYet(hint)
    if found.results.shape[1:] != want.shape:
        raise NotYet(
            translate(
                "the shape is {got} on each device and should be {want}", got=found.results.shape[1:], want=want.shape
            )
        )
    for device, result in enumerate(found.results):
        if not is_close(result.astype(float), want, TOLERANCE):
            raise NotYet(
                translate(
                    "wrong values on device {device}: the first is {got:.4g}, want {want:.4g}",
                    device=device, got=result.flat[0], want=want.flat[0],
                )
            )  # fmt: skip


def _one_sum(found: tuple[Collective, ...], instead: str) -> None:
    """Raise NotYet unless the only collective is one all-reduce."""
    other = [entry for entry in found if entry.kind is not CollectiveKind.ALL_REDUCE]
    if other:
        raise NotYet(
            translate(
                "the right result, but the compiled program has {collectives}: {instead}",
                collectives=collectives_text(found),
                instead=translate(instead),
            )
        )
    sums = sum(len(entry.parts) * (entry.count or 1) for entry in found)
    if sums != 1:
        raise NotYet(
            translate(
                "the right result, but the compiled program has {collectives}; one sum is enough: {instead}",
                collectives=collectives_text(found),
                instead=translate(instead),
            )
        )


def _parts(x: np.ndarray, axis: int) -> list[np.ndarray]:
    return np.split(x.astype(float), DEVICES, axis=axis)


def _everywhere(one: np.ndarray) -> np.ndarray:
    return np.stack([one] * DEVICES)


@graded(LAB, "1. a product split by columns")
def by_columns(answer: Answer) -> str:
    """`by_columns(x, w) -> x @ w.T`, whole on every device.

    x [T, K/n] and w [N, K/n] are a device's columns."""
    random = hidden_random(909)
    x, w = (random.normal(size=shape).astype(np.float32) for shape in ((3, 64), (24, 64)))
    found = _run_on_devices(answer, (COLUMNS, COLUMNS), (x, w))
    partial_sums = np.stack([a @ b.T for a, b in zip(_parts(x, 1), _parts(w, 1), strict=True)])
    want = partial_sums.sum(0)
    mistakes = (
        (message("every device holds its own part of each sum: add them up with jax.lax.psum"), partial_sums),
        (message("that is the mean over the devices; wanted is the sum: psum, not pmean"), _everywhere(want / DEVICES)),
        (message("x was summed before the product: columns of x belong to columns of w, so multiply first"),
         np.stack([sum(_parts(x, 1)) @ b.T for b in _parts(w, 1)])),
        (message("that is the transpose: x @ w.T, a row a token, as in every lab"), _everywhere(want.T)),
        (message("psum_scatter leaves each device a part of the sum; here all of it is wanted everywhere: psum"),
         np.stack(np.split(want, DEVICES, axis=1))),
    )  # fmt: skip
    _examine(found, want, mistakes)
    _one_sum(found.ledger, message("multiply what is here first, then add up the small result with one psum"))
    return "every device has the whole product, after one all-reduce."


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@graded(LAB, "2. a feed-forward with one psum")
def feed_forward(answer: Answer) -> str:
    """`feed_forward(x, gate, up, down)`: rows of gate and up, columns of down, and exactly one psum."""
    random = hidden_random(910)
    x = random.normal(size=(3, 32)).astype(np.float32)
    gate, up = (random.normal(size=(64, 32)).astype(np.float32) / 6 for _ in range(2))
    down = random.normal(size=(32, 64)).astype(np.float32) / 8
    found = _run_on_devices(answer, (REPLICATED, ROWS, ROWS, COLUMNS), (x, gate, up, down))
    pieces = list(zip(_parts(gate, 0), _parts(up, 0), _parts(down, 1), strict=True))

    def summed(inner: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        return sum(inner(x @ g.T, x @ u.T) @ d.T for g, u, d in pieces)

    want = summed(lambda g, u: _silu(g) * u)
    hidden = sum(_silu(x @ g.T) * (x @ u.T) for g, u, _ in pieces)
    mistakes = (
        (message("every device holds its own part of each sum: one psum, after the product with down"),
         np.stack([(_silu(x @ g.T) * (x @ u.T)) @ d.T for g, u, d in pieces])),
        (message("the psum is before the product with down: there each device has numbers of its own rows, which are "
         "different numbers and not parts of a sum"), np.stack([hidden @ d.T for _, _, d in pieces])),
        (message("the same, and summed once more: before the product with down there is nothing to add up"),
         _everywhere(sum(hidden @ d.T for _, _, d in pieces))),
        (message("summed twice: after the first psum every device has the whole"), _everywhere(want * DEVICES)),
        (message("that is the mean over the devices; wanted is the sum: psum, not pmean"), _everywhere(want / DEVICES)),
        (message("silu belongs to gate, not to up"), _everywhere(summed(lambda g, u: g * _silu(u)))),
        (message("silu is missing: silu(x @ gate.T) * (x @ up.T)"), _everywhere(summed(lambda g, u: g * u))),
        (message("gate and up are multiplied, not added"), _everywhere(summed(lambda g, u: _silu(g) + u))),
    )  # fmt: skip
    _examine(found, want, mistakes)
    _one_sum(found.ledger, message("rows of gate and up give each device exactly the input of its columns of down"))
    return "the dense result on every device, after one all-reduce."


def _bytes_sent(layers: int, width: int, tokens: int, devices: int) -> float:
    return tensor_parallel_bytes(layers, width, tokens, devices)


@graded(LAB, "4. bytes that a token sends")
def bytes_sent(answer: Answer) -> str:
    """`bytes_sent(layers, width, tokens, devices)`: what each device sends in a pass, in rings, float32."""
    mistakes = (
        Mistake("half of it: two all-reduces a layer, and each ring goes round twice, to add up and to hand out",
                lambda *case: _bytes_sent(*case) / 2),
        Mistake("a quarter of it: numbers or bytes (a float32 has four)? Or: two all-reduces a layer, and each ring "
                "goes round twice, to add up and to hand out", lambda *case: _bytes_sent(*case) / FLOAT_BYTES),
        Mistake("in a ring a device sends 2 (n - 1) pieces of an n-th: not the whole every time, and not for others",
                lambda layers, width, tokens, n: 2 * layers * tokens * width * FLOAT_BYTES * 2 * (n - 1)),
        Mistake("that is the exchange, all to every other device; in a ring it is 2 (n - 1) / n of the payload",
                lambda layers, width, tokens, n: 2 * layers * tokens * width * FLOAT_BYTES * (n - 1)),
        Mistake("that is the payload; how much of it does a device send? Try n = 1: nothing",
                lambda layers, width, tokens, n: 2 * layers * tokens * width * FLOAT_BYTES),
        Mistake("twice the payload is what it grows towards; with n devices it is 2 (n - 1) / n of the payload",
                lambda layers, width, tokens, n: 4 * layers * tokens * width * FLOAT_BYTES),
        Mistake("and the tokens of the pass?", lambda layers, width, tokens, n: _bytes_sent(layers, width, 1, n)),
    )  # fmt: skip
    cases = ((16, 2048, 3, 4), (80, 8192, 1, 2), (3, 256, 5, 8), (32, 4096, 7, 1))
    for case in (*cases, *hidden_cases(904, whole(2, 80), whole(64, 8192), whole(2, 9), whole(2, 16))):
        named = dict(zip(("layers", "width", "tokens", "devices"), case, strict=True))
        expect_equal(
            answer, case, _bytes_sent, mistakes, tolerance=1e-9, case=", ".join(f"{k}={v}" for k, v in named.items())
        )
    return "two rings a layer; hardly more with many devices than with a few."


def _break_even(seconds: float, collectives: int, hosts: int) -> float:
    return seconds * (1 - 1 / hosts) / collectives


@dataclass
class OwnMeasurement:
    """The learner's measurements: seconds per token of one process, collectives per token."""

    case: tuple[float, int, int] | None = None

    def on(self, seconds: float, collectives: int, hosts: int) -> "OwnMeasurement":
        """Add these numbers to the check's cases."""
        self.case = (float(seconds), int(collectives), int(hosts))
        return self


own = OwnMeasurement()


@graded(LAB, "5. breaking even")
def break_even(answer: Answer) -> str:
    """`break_even(seconds, collectives, hosts)`: the longest a collective may take for many hosts to equal one."""
    mistakes = (
        Mistake("that is for all collectives of a token together: divide by their number",
                lambda s, c, n: s * (1 - 1 / n)),
        Mistake("what is saved is seconds - seconds / hosts, the rest is still to be done",
                lambda s, c, n: s / n / c),
        Mistake("with that there is no time left for the work: each host still needs seconds / hosts",
                lambda s, c, n: s / c),
        Mistake("collectives counts those of a whole token already", lambda s, c, n: _break_even(s, c, n) / 2),
        Mistake("upside down: seconds saved over collectives", lambda s, c, n: c / (s * (1 - 1 / n))),
        Mistake("one collective takes this long with any number of hosts: do not divide by hosts again",
                lambda s, c, n: _break_even(s, c, n) / n),
    )  # fmt: skip
    hidden = hidden_cases(905, real(0.01, 1.0), whole(8, 200), whole(3, 16))
    cases = [(0.698, 160, 4), (0.1, 32, 2), (0.02, 12, 8), *hidden, *([own.case] if own.case else [])]
    for case in cases:
        named = (
            message("your own machine")
            if case is own.case
            else f"seconds={case[0]}, collectives={case[1]}, hosts={case[2]}"
        )
        expect_equal(answer, case, _break_even, mistakes, tolerance=1e-6, case=named)
    return "a limit to compare a network with, before you buy anything."


ITEMS = (by_columns, feed_forward, specs, bytes_sent, break_even)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
