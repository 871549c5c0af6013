"""Graded items of lab 10: a perplexity from log likelihoods, and two of them compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minillama.array_types import Float, Int
from minillama.lab.grading.check import Answer, Comparison, Mistake, NotYet, call, compared, expect_equal, graded
from minillama.lab.grading.course_seed import hidden_random, hidden_seed
from minillama.lab.language import translate

LAB = "10"
BETTER, WORSE, OPEN, OTHER = "better", "worse", "cannot tell", "not comparable"
VERDICTS = (BETTER, WORSE, OPEN, OTHER)


@dataclass(frozen=True)
class Scored:
    """Scored tokens of a text, and their log likelihoods."""

    tokens: Int[np.ndarray, "scored"]
    log_likelihoods: Float[np.ndarray, "scored"]


def _scored(values: np.ndarray, ctx: int, *, first: int | None = None, stop: int = 0) -> np.ndarray:
    """The scored values of each whole window: `first` is the place of the first one."""
    windows = np.asarray(values)[: len(values) // ctx * ctx].reshape(-1, ctx)
    return windows[:, (ctx // 2 + 1 if first is None else first) : ctx - stop]


def _estimate(values: np.ndarray, *, base: float = np.e, ddof: int = 1) -> np.ndarray:
    """Perplexity and its error, of scored values."""
    values = np.asarray(values).reshape(-1)
    ppl = base ** -values.mean()
    return np.array([ppl, ppl * values.std(ddof=ddof) / np.sqrt(len(values))])


def _perplexity(values: np.ndarray, ctx: int) -> np.ndarray:
    return _estimate(_scored(values, ctx))


def _with_rest(values: np.ndarray, ctx: int) -> np.ndarray:
    rest = values[len(values) // ctx * ctx :][ctx // 2 + 1 :]
    return _estimate(np.concatenate([_scored(values, ctx).reshape(-1), rest]))


def _of_windows(values: np.ndarray, ctx: int) -> np.ndarray:
    each = np.exp(-_scored(values, ctx).mean(axis=1))
    return np.array([each.mean(), each.std(ddof=1) / np.sqrt(len(each))])


def _error(change: Callable[[float, np.ndarray], float]) -> Answer:
    """The right perplexity with another error."""

    def answer(values: np.ndarray, ctx: int) -> np.ndarray:
        scored = _scored(values, ctx).reshape(-1)
        ppl = _estimate(scored)[0]
        return np.array([ppl, change(ppl, scored)])

    return answer


PERPLEXITY_MISTAKES = (
    Mistake("score only the second half of each window: the first half is there as context",
            lambda v, c: _estimate(_scored(v, c, first=1))),
    Mistake("that is the first half; the *second* half has context before it",
            lambda v, c: _estimate(_scored(v, c, first=1, stop=c - c // 2 - 1))),
    Mistake("one too many in each window: the logits at position ctx // 2 score the token *after* it",
            lambda v, c: _estimate(_scored(v, c, first=c // 2))),
    Mistake("the last token of a window is scored: only the logits *after* it score nothing",
            lambda v, c: _estimate(_scored(v, c, stop=1))),
    Mistake("the tokens after the last whole window are left out", _with_rest),
    Mistake("one mean over all scored tokens: no mean of the windows' perplexities", _of_windows),
    Mistake("the second half of each *window*, not of the text",
            lambda v, c: _estimate(np.asarray(v)[len(v) // 2 + 1 :][~np.isnan(np.asarray(v)[len(v) // 2 + 1 :])])),
    Mistake("a log likelihood is negative: exp of *minus* their mean",
            lambda v, c: _estimate(-_scored(v, c))),
    Mistake("natural logarithms: exp, not a power of 2", lambda v, c: _estimate(_scored(v, c), base=2.0)),
    Mistake("the error of the mean is in nats: times the perplexity it is that of the perplexity",
            _error(lambda ppl, v: float(v.std(ddof=1) / np.sqrt(len(v))))),
    Mistake("the error of a mean is the deviation over √n", _error(lambda ppl, v: float(ppl * v.std(ddof=1)))),
    Mistake("n - 1 of n values are free once their mean is known: ddof=1",
            lambda v, c: _estimate(_scored(v, c), ddof=0)),
)  # fmt: skip


def window_values(tokens: int, ctx: int, seed: int) -> Float[np.ndarray, "T"]:
    """Log likelihoods of a text; the first token of each window has none."""
    values = -np.random.default_rng(seed).gamma(1.5, 2.0, tokens)
    values[::ctx] = np.nan
    return values


@graded(LAB, "4. a perplexity from log likelihoods")
def perplexity_of(answer: Answer) -> str:
    """`perplexity_of(log_likelihoods, ctx) -> (PPL, error)` by llama-perplexity's rules."""
    for number, (tokens, ctx) in enumerate(((54, 8), (47, 10), (440, 64))):
        case = translate("{tokens} tokens and windows of {ctx}", tokens=tokens, ctx=ctx)
        expect_equal(answer, (window_values(tokens, ctx, hidden_seed(number)), ctx), _perplexity, PERPLEXITY_MISTAKES,
                     tolerance=1e-6, case=case)  # fmt: skip
    return "llama-perplexity's two numbers, by its windows."


def _pair(z: float, *, size: int = 400, spread: float = 0.1, seed: int = 0) -> tuple[Scored, Scored]:
    """Two models on the same tokens, exactly z standard errors apart."""
    random = hidden_random(seed)
    noise = random.normal(size=size)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    a, tokens = -random.gamma(1.5, 2.0, size), random.integers(2048, size=size)
    return Scored(tokens, a), Scored(tokens.copy(), a + spread * (noise + z / np.sqrt(size)))


def _moved(pair: tuple[Scored, Scored], place: int) -> tuple[Scored, Scored]:
    """The same, and the second model has read another token at a place."""
    tokens = pair[1].tokens.copy()
    tokens[place] = (tokens[place] + 1) % 2048
    return pair[0], Scored(tokens, pair[1].log_likelihoods)


def _cut(pair: tuple[Scored, Scored], size: int) -> tuple[Scored, Scored]:
    """The same, and the second model has scored fewer tokens."""
    return pair[0], Scored(pair[1].tokens[:size], pair[1].log_likelihoods[:size])


def _pairs() -> list[tuple[Scored, Scored]]:
    return [
        _pair(5.0), _pair(-5.0, seed=1), _pair(1.5, seed=2), _pair(-1.4, seed=3),
        _pair(2.5, size=60, spread=0.02, seed=4), _pair(-2.3, size=900, spread=0.4, seed=5),
        _pair(0.2, spread=3.0, seed=6), _pair(12.0, spread=4.0, seed=7), _moved(_pair(5.0, seed=8), 17),
        _cut(_pair(-5.0, seed=9), 300),
    ]  # fmt: skip


def _differ(a: Scored, b: Scored, *, errors: float = 2.0, check: str = "tokens", paired: bool = True,
            single: bool = False) -> str:  # fmt: skip
    """The right verdict; each keyword makes one mistake."""
    same = len(a.tokens) == len(b.tokens) and (check != "tokens" or np.array_equal(a.tokens, b.tokens))
    if check != "nothing" and not same:
        return OTHER
    size = min(len(a.tokens), len(b.tokens))
    first, second = a.log_likelihoods[:size], b.log_likelihoods[:size]
    change = second - first
    spread = change.std(ddof=1) if paired else np.hypot(first.std(ddof=1), second.std(ddof=1))
    error = spread if single else spread / np.sqrt(size)
    if abs(change.mean()) <= errors * error:
        return OPEN
    return BETTER if change.mean() > 0 else WORSE


def _swapped(a: Scored, b: Scored) -> str:
    return {BETTER: WORSE, WORSE: BETTER}.get(_differ(a, b), _differ(a, b))


DIFFER_MISTAKES = (
    Mistake("both have read the *same* tokens: take the error of the differences, token by token; two error bars "
            "hold the difficulty of the text twice", lambda a, b: _differ(a, b, paired=False)),
    Mistake("a larger log likelihood is better: less surprise", _swapped),
    Mistake("compare the tokens themselves: as many tokens need not be the same ones",
            lambda a, b: _differ(a, b, check="length")),
    Mistake("other tokens are scored: nothing to compare, so say it", lambda a, b: _differ(a, b, check="nothing")),
    Mistake("one standard error is exceeded by chance in one of three comparisons: require two",
            lambda a, b: _differ(a, b, errors=1.0)),
    Mistake("some difference is always there; it must exceed two of its standard errors",
            lambda a, b: _differ(a, b, errors=0.0)),
    Mistake("that is the spread of single differences; the error of their mean is smaller by √n",
            lambda a, b: _differ(a, b, single=True)),
)  # fmt: skip


@graded(LAB, "5. better, worse, or cannot tell")
def differ(answer: Answer) -> str:
    """`differ(a, b)`: is b better or worse than a, on the same tokens?"""
    pairs = _pairs()
    got = [call(answer, *pair, case=translate("{size} tokens", size=len(pair[0].tokens))) for pair in pairs]
    if wrong := [verdict for verdict in got if not isinstance(verdict, str) or verdict not in VERDICTS]:
        words = ", ".join(map(repr, VERDICTS))
        raise NotYet(translate("the answer is one of {words}, not {got!r}", words=words, got=str(wrong[0])[:40]))

    def outcome(function: Answer) -> list[object]:
        return [function(*pair) for pair in pairs]

    comparison = compared(Comparison(outcome, _differ, DIFFER_MISTAKES))
    if comparison.accepts(got):
        return translate(
            "{count} pairs: {open} are rightly left open, {other} cannot be compared.",
            count=len(pairs), open=got.count(OPEN), other=got.count(OTHER),
        )  # fmt: skip
    if hint := comparison.hint(got):
        raise NotYet(hint)
    raise NotYet(_first_wrong(pairs, got))


def _first_wrong(pairs: Sequence[tuple[Scored, Scored]], got: Sequence[object]) -> str:
    """The first pair with another verdict, in one line."""
    a, b, verdict = next((*pair, found) for pair, found in zip(pairs, got, strict=True) if found != _differ(*pair))
    want = _differ(a, b)
    if want == OTHER:
        return translate("two models that scored other tokens: {want!r}, and yours is {got!r}", want=want, got=verdict)
    change = b.log_likelihoods - a.log_likelihoods
    error = change.std(ddof=1) / np.sqrt(len(change))
    return translate(
        "a mean of b - a of {mean:.4f} ± {error:.4f}: {want!r}, and yours is {got!r}",
        mean=change.mean(), error=error, want=want, got=verdict,
    )  # fmt: skip
