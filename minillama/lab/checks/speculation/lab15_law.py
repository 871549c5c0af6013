"""Graded items of lab 15: tokens of a pass, speed-up, best length in a batch."""

from minillama.lab.grading.check import Answer, Mistake, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_cases, real, share, whole
from minillama.lab.language import translate
from minillama.lab.speculation import speculation_law as law
from minillama.lab.speculation.speculation_law import MOST_ROWS, Seconds

LAB = "15"


def _sum(a: float, first: int, last: int) -> float:
    return sum(a**place for place in range(first, last + 1))


EXPECTED_MISTAKES = (
    Mistake("a pass also writes one token of the model's own: the sum begins with 1", lambda a, k: _sum(a, 1, k)),
    Mistake("all k guesses may be right, and then the pass writes k + 1 tokens: the last term is a^k",
            lambda a, k: _sum(a, 0, k - 1)),
    Mistake("one term too many: k guesses and one token of the model's own are k + 1 terms",
            lambda a, k: _sum(a, 0, k + 1)),
    Mistake("a guess counts only if all guesses before it are right: a, a^2, a^3, ..., not a for each",
            lambda a, k: 1 + a * k),
    Mistake("that is the chance that all guesses are right; add up the chances of each",
            lambda a, k: 1 + a**k * k),
    Mistake("the tokens of endless guesses: here are only k", lambda a, k: 1 / (1 - a) if a < 1 else k + 1),
    Mistake("with a = 1 all guesses are right: k + 1 tokens. The formula divides 0 by 0 there; the sum does not",
            lambda a, k: (1 - a ** (k + 1)) / (1 - a) if a < 1 else float("nan")),
    Mistake("with a = 1 all guesses are right: k + 1 tokens. Your value there is that of no guess",
            lambda a, k: (1 - a ** (k + 1)) / (1 - a) if a < 1 else 1.0),
)  # fmt: skip
_TOKENS = ((0.8, 3), (0.6, 7), (0.9, 1), (0.5, 2), (0.0, 4), (0.7, 0), (1.0, 5))


@graded(LAB, "2. tokens of a pass")
def expected_tokens(answer: Answer) -> str:
    """`expected_tokens(a, k) -> mean tokens` that a pass over k guesses writes."""
    for a, k in (*_TOKENS, *hidden_cases(1502, share(), whole(1, 12))):
        case = translate("a={a} and k={k}", a=a, k=k)
        expect_equal(answer, (a, k), law.expected_tokens, EXPECTED_MISTAKES, tolerance=1e-9, case=case)
    return "1 token for a = 0, k + 1 tokens for a = 1."


def _gain(a: float, k: int, draft: float, cost: float, *, tokens: float | None = None, times: float | None = None,
          unit: float = 1.0) -> float:  # fmt: skip
    """The right speed-up; each keyword makes one mistake."""
    written = law.expected_tokens(a, k) if tokens is None else tokens
    return written / (cost * unit + (k if times is None else times) * draft)


SPEEDUP_MISTAKES = (
    Mistake("the draft model computes one guess after the other: k times its cost",
            lambda a, k, d, c: _gain(a, k, d, c, times=1)),
    Mistake("the draft model is not free: add k times its cost", lambda a, k, d, c: _gain(a, k, d, c, times=0)),
    Mistake("the last token is the model's own: k guesses, not k + 1",
            lambda a, k, d, c: _gain(a, k, d, c, times=k + 1)),
    Mistake("`cost` is that of the whole pass, whatever the number of its tokens",
            lambda a, k, d, c: _gain(a, k, d, c, unit=k + 1)),
    Mistake("a pass over guesses takes `cost` plain passes, not one",
            lambda a, k, d, c: _gain(a, k, d, 1.0)),
    Mistake("not all guesses are right: use expected_tokens(a, k)", lambda a, k, d, c: _gain(a, k, d, c, tokens=k + 1)),
    Mistake("a guess counts only if all before it are right: use expected_tokens(a, k), not 1 + a * k",
            lambda a, k, d, c: _gain(a, k, d, c, tokens=1 + a * k)),
    Mistake("inverted: tokens over their cost", lambda a, k, d, c: 1 / _gain(a, k, d, c)),
    Mistake("divide by the cost, do not multiply", lambda a, k, d, c: law.expected_tokens(a, k) * (c + k * d)),
    Mistake("that is the gain in addition: the ratio of two speeds has no 1 to subtract",
            lambda a, k, d, c: _gain(a, k, d, c) - 1),
)  # fmt: skip


@graded(LAB, "3. the speed-up")
def speedup(answer: Answer) -> str:
    """`speedup(a, k, draft, cost) -> times faster` than without guesses."""
    cases = ((0.8, 3, 0.1, 1.4), (0.6, 7, 0.05, 2.0), (0.3, 5, 0.3, 1.5), (0.9, 2, 0.0, 1.2))
    for a, k, draft, cost in (*cases, *hidden_cases(1503, share(), whole(2, 12), real(0.01, 0.5), real(1.05, 3.0))):
        case = f"a={a}, k={k}, draft={draft}, cost={cost}"
        expect_equal(answer, (a, k, draft, cost), law.speedup, SPEEDUP_MISTAKES, tolerance=1e-9, case=case)
    return "a guess pays while its chance is larger than its price."


def _best(a: float, batch: int, draft: float, seconds: Seconds, *, first: int = 0, most: int = MOST_ROWS,
          rows: Seconds | None = None, score: Answer | None = None) -> int:  # fmt: skip
    """The right length; each keyword makes one mistake."""
    lengths = range(first, max(first + 1, most // batch))
    score = score or (lambda k: law.batch_speedup(a, k, batch, draft, rows or seconds))
    return max(lengths, key=score)


def _rate(a: float, k: int, rows: int, draft: float, seconds: Seconds) -> float:
    return law.expected_tokens(a, k) / (seconds(rows) + k * draft)


BEST_MISTAKES = (
    Mistake("no guess at all is also a choice: begin with k = 0", lambda a, b, d, s: _best(a, b, d, s, first=1)),
    Mistake("most tokens of a pass are not most tokens a second: divide by the seconds",
            lambda a, b, d, s: _best(a, b, d, s, score=lambda k: law.expected_tokens(a, k))),
    Mistake("all texts of the batch are in the pass: batch * (k + 1) rows",
            lambda a, b, d, s: _best(a, b, d, s, score=lambda k: _rate(a, k, k + 1, d, s))),
    Mistake("each text has its latest token and k guesses in the pass: batch * (k + 1) rows",
            lambda a, b, d, s: _best(a, b, d, s, score=lambda k: _rate(a, k, max(b * k, 1), d, s))),
    Mistake("the draft model takes time, too: k * draft", lambda a, b, d, s: _best(a, b, 0.0, s)),
    Mistake("draft is for all texts of the batch together: do not multiply it by the batch",
            lambda a, b, d, s: _best(a, b, b * d, s)),
    Mistake("a pass has at most 32 rows: batch * (k + 1) <= 32", lambda a, b, d, s: _best(a, b, d, s, most=128)),
    Mistake("return the number of guesses, not the speed",
            lambda a, b, d, s: law.batch_speedup(a, _best(a, b, d, s), b, d, s)),
    Mistake("the number of guesses, not of rows of a text: k, not k + 1", lambda a, b, d, s: _best(a, b, d, s) + 1),
)  # fmt: skip


def linear_seconds(step: float, row: float) -> Seconds:
    """Seconds of a pass with a fixed part and some work for each row."""
    return lambda rows: step + row * rows


_BATCHES = (  # acceptance, texts, seconds of a guess, seconds of a pass and of a row
    (0.8, 1, 0.6, 10.0, 0.3), (0.8, 4, 0.6, 10.0, 0.3), (0.8, 8, 0.6, 10.0, 0.3), (0.3, 8, 1.0, 10.0, 1.0),
    (0.9, 2, 0.3, 20.0, 0.1), (0.85, 4, 0.1, 30.0, 0.1), (0.5, 3, 1.5, 12.0, 0.2), (0.6, 16, 0.2, 10.0, 0.5),
    (0.7, 2, 2.0, 10.0, 0.1), (0.95, 8, 0.1, 40.0, 0.2),
)  # fmt: skip


def _is_clear(a: float, batch: int, draft: float, step: float, row: float) -> bool:
    """True if no two lengths are equally good but for rounding."""
    seconds, lengths = linear_seconds(step, row), range(max(1, MOST_ROWS // batch))
    gains = sorted(law.batch_speedup(a, k, batch, draft, seconds) for k in lengths)
    return len(gains) > 1 and gains[-1] > gains[-2] * (1 + 1e-6)


@graded(LAB, "5. the best guess in a batch")
def best_k(answer: Answer) -> str:
    """`best_k(a, batch, draft, seconds) -> k` with most tokens a second, 0 where guesses do not pay."""
    draws = (share(), whole(1, 12), real(0.1, 2.0), real(8.0, 40.0), real(0.1, 1.0))
    for a, batch, draft, step, row in (*_BATCHES, *hidden_cases(1505, *draws, count=4, fits=_is_clear)):
        seconds = linear_seconds(step, row)
        case = translate(
            "a={a}, a batch of {batch}, draft={draft} and seconds(rows) = {step} + {row} * rows",
            a=a, batch=batch, draft=draft, step=step, row=row,
        )  # fmt: skip
        expect_equal(answer, (a, batch, draft, seconds), law.best_guesses, BEST_MISTAKES, case=case)
    return "the larger the batch, the shorter the guess."
