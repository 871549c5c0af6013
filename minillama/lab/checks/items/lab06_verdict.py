"""Graded item of lab 06: which of two models is better, by pairs of tokens."""

import numpy as np

from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, as_array, call, compared, graded
from minillama.lab.grading.course_seed import hidden_random
from minillama.lab.language import message, translate

LAB = "06"


def _pair(z: float, *, size: int = 300, spread: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token nll of two models; mean(b - a) is exactly z standard errors."""
    random = hidden_random(seed)
    noise = random.normal(size=size)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    a = random.gamma(2.0, 2.5, size)
    return a, a + spread * (noise + z / np.sqrt(size))


def _verdict(a: np.ndarray, b: np.ndarray, *, errors: float = 2.0) -> int:
    difference = b - a
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return -int(np.sign(difference.mean())) if abs(difference.mean()) > errors * error else 0


def _unpaired(a: np.ndarray, b: np.ndarray, *, total: bool = True) -> int:
    each = [values.std(ddof=1) / np.sqrt(len(values)) for values in (a, b)]
    error = np.hypot(*each) if total else sum(each)
    return -int(np.sign((b - a).mean())) if abs((b - a).mean()) > 2 * error else 0


def _cases() -> list[tuple[np.ndarray, np.ndarray]]:
    settings = ((6.0, 300, 0.2), (-6.0, 300, 0.2), (1.5, 300, 0.2), (-1.5, 300, 0.2), (0.3, 900, 0.2), (2.6, 50, 0.01),
                (-2.4, 900, 0.5), (9.0, 2000, 6.0), (-0.9, 60, 3.0))  # fmt: skip
    return [_pair(z, size=size, spread=spread, seed=number) for number, (z, size, spread) in enumerate(settings)]


PAIRED = message(
    "two bars that overlap say little here: both models read the *same* tokens, so take the error of the differences "
    "b - a, token by token"
)
VERDICT_MISTAKES = (
    Mistake(PAIRED, _unpaired),
    Mistake(PAIRED, lambda a, b: _unpaired(a, b, total=False)),
    Mistake("the smaller nll is the better model: -1 where b - a is above 0", lambda a, b: -_verdict(a, b)),
    Mistake("1 standard error is passed by chance in one of three comparisons: require two",
            lambda a, b: _verdict(a, b, errors=1.0)),
    Mistake("some difference is always there; it must exceed two of its standard errors",
            lambda a, b: _verdict(a, b, errors=0.0)),
    Mistake("the error of a mean is std / √n; yours is the spread of single tokens",
            lambda a, b: _verdict(a, b, errors=2 * len(a) ** 0.5)),
)  # fmt: skip


@graded(LAB, "3. what two error bars allow")
def verdict(answer: Answer) -> str:
    """`verdict(a, b) -> -1 (a is better), 1 (b is better) or 0`, pair by pair at two standard errors."""
    cases = _cases()
    got = np.array(
        [float(as_array(call(answer, a, b, case=translate("{size} tokens", size=len(a))))) for a, b in cases]
    )

    def outcome(function: Answer) -> np.ndarray:
        return np.array([function(a, b) for a, b in cases], np.float64)

    comparison = compared(Comparison(outcome, _verdict, VERDICT_MISTAKES))
    want = outcome(_verdict)
    if comparison.accepts(got):
        left_open = int(np.sum(want == 0))
        return translate("{count} comparisons, {open} of them rightly left open.", count=len(cases), open=left_open)
    if hint := comparison.hint(got):
        raise NotYet(hint)
    if np.all(got == got[0]):
        raise NotYet("always the same: compare the mean of b - a with two of its standard errors")
    place = int(np.argmax(got != want))
    a, b = cases[place]
    error = (b - a).std(ddof=1) / np.sqrt(len(a))
    text = translate(
        "for a mean of b - a of {mean:.4f} with a standard error of {error:.4f} the verdict is "
        "{want:.0f}, and yours is {got:g}",
        mean=(b - a).mean(), error=error, want=want[place], got=got[place],
    )  # fmt: skip
    raise NotYet(text)
