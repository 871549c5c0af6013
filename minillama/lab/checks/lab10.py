"""Graded items of lab 10: rates, share of the roof, unfair comparisons, perplexities."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from minillama.lab.checks.items.lab10_scores import Scored, differ, perplexity_of
from minillama.lab.grading.check import Answer, Mistake, NotYet, Score, as_array, call, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_seed, real, whole
from minillama.lab.language import message, translate
from minillama.lab.recorded.recorded_runs import (
    MODEL,
    PROGRAM,
    RESULTS,
    number,
    recorded,
)

LAB = "10"
Samples = Sequence[int]
Claim = Mapping[str, object]


def _rates(samples: Samples, tokens: int) -> np.ndarray:
    return 1e9 * tokens / np.asarray(samples, np.float64)


def _deviation(values: np.ndarray, ddof: int = 1) -> float:
    return float(values.std(ddof=ddof)) if len(values) > ddof else 0.0


def _rate(samples: Samples, tokens: int) -> np.ndarray:
    rates = _rates(samples, tokens)
    return np.array([rates.mean(), _deviation(rates)])


def _mean(change: Callable[[np.ndarray], float]) -> Answer:
    """The right deviation with another mean."""
    return lambda s, n: np.array([change(_rates(s, n)), _rate(s, n)[1]])


def _spread(change: Callable[[np.ndarray], float]) -> Answer:
    """The right mean with another deviation."""
    return lambda s, n: np.array([_rate(s, n)[0], change(_rates(s, n))])


def _of_times(samples: Samples, tokens: int) -> np.ndarray:
    times = np.asarray(samples, np.float64) / 1e9
    rate = tokens / times.mean()
    return np.array([rate, rate * _deviation(times) / times.mean()])


RATE_MISTAKES = (
    Mistake("llama-bench takes the rate of each repetition first, then the mean of the *rates*; yours divides the "
            "tokens by the mean time", _mean(lambda r: 1 / np.mean(1 / r))),
    Mistake("llama-bench takes the rate of each repetition first, then the mean of the *rates*; yours divides the "
            "tokens by the mean time", _of_times),
    Mistake("a median would be wise, but llama-bench prints the mean", _mean(lambda r: float(np.median(r)))),
    Mistake("the best repetition flatters: the mean of all", _mean(lambda r: float(r.max()))),
    Mistake("the sample deviation: divide by n - 1, ddof=1", _spread(lambda r: _deviation(r, 0))),
    Mistake("± is the deviation of single repetitions, not the error of their mean: no √n",
            _spread(lambda r: _deviation(r) / np.sqrt(len(r)))),
    Mistake("± is a deviation, not half of the range", _spread(lambda r: float(np.ptp(r)) / 2)),
    Mistake("one repetition has no deviation: llama-bench prints 0",
            _spread(lambda r: _deviation(r) if len(r) > 1 else np.nan)),
    Mistake("samples are nanoseconds: 1e9 of them are a second", lambda s, n: _rate(s, n) / 1e9),
    Mistake("samples are nanoseconds, not milliseconds", lambda s, n: _rate(s, n) / 1e6),
    Mistake("a repetition computes all n_tokens: tokens a second, not repetitions a second",
            lambda s, n: _rate(s, n) / n),
)  # fmt: skip


@graded(LAB, "1. the rate and its ±")
def tokens_per_second(answer: Answer) -> str:
    """`tokens_per_second(samples_ns, n_tokens) -> (mean, deviation)` as llama-bench prints them."""
    cases = (([90_000_000, 130_000_000, 100_000_000, 310_000_000], 128), ([2_000_000_000, 1_100_000_000], 512),
             ([640_000_000], 64))  # fmt: skip
    hidden = hidden_cases(1001, lambda random: random.integers(5 * 10**7, 4 * 10**8, 5).tolist(), whole(16, 512))
    for samples, tokens in (*cases, *hidden):
        case = translate("{count} samples", count=len(samples))
        expect_equal(answer, (samples, tokens), _rate, RATE_MISTAKES, tolerance=1e-6, case=case)
    rows = [row for run in recorded().speeds for row in run.rows]
    for row in rows:
        got = as_array(call(answer, list(row["samples_ns"]), int(number(row, "n_prompt") + number(row, "n_gen"))))  # type: ignore[call-overload]
        want = np.array([number(row, name) for name in RESULTS])
        if not np.allclose(got, want, rtol=1e-4, atol=1e-4 * want[0]):
            raise NotYet(
                translate("for a recorded row yours is {got}, and the program printed {want}", got=got, want=want)
            )
    return translate("the mean of rates, and their sample deviation: as in all {count} recorded rows.", count=len(rows))


Decode = Mapping[str, float]


def _share(row: Decode, bandwidth: float, *, weights: float = 1.0, positions: str = "all") -> float:
    """The right share; each keyword makes one mistake."""
    seen = {
        "all": row["n_depth"] + (row["n_gen"] + 1) / 2, "depth": row["n_depth"], "none": 0.0,
        "end": row["n_depth"] + row["n_gen"], "generated": (row["n_gen"] + 1) / 2,
    }[positions]  # fmt: skip
    return (weights * row["weight_bytes"] + seen * row["cache_bytes"]) * row["avg_ts"] / bandwidth


SHARE_MISTAKES = (
    Mistake("a token reads the cache as well: cache_bytes for each position",
            lambda r, b: _share(r, b, positions="none")),
    Mistake("the generated tokens are in the cache too, on average (n_gen + 1) / 2 of them",
            lambda r, b: _share(r, b, positions="depth")),
    Mistake("only the last token reads all n_gen: on average it is (n_gen + 1) / 2",
            lambda r, b: _share(r, b, positions="end")),
    Mistake("the n_depth tokens before the test are in the cache from the first step on",
            lambda r, b: _share(r, b, positions="generated")),
    Mistake("each token reads the weights too: they are most of the bytes", lambda r, b: _share(r, b, weights=0.0)),
    Mistake("the share is 1 at the roof: yours is upside down", lambda r, b: 1 / _share(r, b)),
    Mistake("a share, not percent", lambda r, b: 100 * _share(r, b)),
    Mistake("bytes a second on both sides: no factor of 1e9", lambda r, b: 1e9 * _share(r, b)),
    Mistake("bytes a second on both sides: no factor of 1e9", lambda r, b: _share(r, b) / 1e9),
    Mistake("that is the speed at the roof; the share is the measured speed over it",
            lambda r, b: r["avg_ts"] / _share(r, b)),
    Mistake("avg_ts counts single tokens already: no factor n_gen", lambda r, b: _share(r, b) * r["n_gen"]),
)  # fmt: skip


@graded(LAB, "2. the share of the roof")
def share_of_roof(answer: Answer) -> str:
    """`share_of_roof(row, bandwidth) -> share` of a decode test."""
    rows: tuple[tuple[Decode, float], ...] = (
        ({"avg_ts": 48.5, "n_gen": 128, "n_depth": 2048, "weight_bytes": 277_000_000, "cache_bytes": 12_288}, 20e9),
        ({"avg_ts": 610.0, "n_gen": 32, "n_depth": 512, "weight_bytes": 2_400_000, "cache_bytes": 15_360}, 15e9),
    )
    draws = (real(1.0, 1000.0), whole(8, 256), whole(100, 8192), whole(10**6, 10**9), whole(1000, 10**5))
    hidden = [(dict(zip(rows[0][0], case, strict=True)), 20e9) for case in hidden_cases(1002, *draws)]
    for row, bandwidth in (*rows, *hidden):
        case = translate("depth {depth}", depth=row["n_depth"])
        expect_equal(answer, (row, bandwidth), _share, SHARE_MISTAKES, tolerance=1e-4, case=case)
    return "bytes a token times tokens a second, over what the memory gives."


def _unfair(claims: Sequence[Claim], *, ignored: Sequence[str] = (), fair: bool = False, first: int = 0) -> np.ndarray:
    """Places of the unfair claims; each keyword makes one mistake."""
    found = []
    for place, claim in enumerate(claims):
        a, b = claim["rows"]  # type: ignore[misc]
        compared = claim["compared"]
        others = [name for name in a if name not in (*RESULTS, *compared, *ignored)]  # type: ignore[misc]
        if any(a[name] != b[name] for name in others) != fair:
            found.append(place + first)
    return np.array(found, float)


IGNORED = message("look at every setting: two rows differ in {name} only")
UNFAIR_MISTAKES = (
    Mistake("that is every claim: leave out the results, avg_ts and stddev_ts, and the names in `compared`, which must "
            "differ", lambda c: np.arange(len(c), dtype=float)),
    Mistake("those are the fair ones", lambda c: _unfair(c, fair=True)),
    Mistake("places are counted from 0", lambda c: _unfair(c, first=1)),
)  # fmt: skip


COUNTED = Mistake("that is how many there are: return their places", lambda c: [len(_unfair(c))])


def _ignored_settings() -> list[Mistake]:
    """A mistake for each setting that is not looked at."""
    names = ("n_threads", "n_depth", "flash_attn", "type_k", "n_batch", "build_commit")
    return [
        Mistake(translate(IGNORED, name=name), lambda c, name=name: _unfair(c, ignored=[name]))  # type: ignore[misc]
        for name in names
    ]


def claims_with(changes: Mapping[int, str], seed: int) -> list[dict[str, object]]:
    """Six claims of random settings; `changes` names one more setting that differs, by place."""
    random = np.random.default_rng(seed)
    kinds = (("n_threads",), PROGRAM, MODEL, ("n_depth",), ("flash_attn",), ("type_k", "type_v"))
    return [_claim(random, kinds[place], changes.get(place)) for place in range(len(kinds))]


def _claim(random: np.random.Generator, compared: tuple[str, ...], changed: str | None) -> dict[str, object]:
    values: dict[str, Sequence[object]] = {
        "program": ("llama-bench", "minillama bench"), "build_commit": ("0c1e570", "9f2a41b"),
        "model_filename": ("small-Q4_0.gguf", "small-Q8_0.gguf"), "n_threads": (1, 2), "n_batch": (2048, 512),
        "n_ubatch": (512, 128), "type_k": ("f16", "q8_0"), "type_v": ("f16", "q8_0"), "flash_attn": (-1, 0),
        "n_prompt": (0,), "n_gen": (128, 64), "n_depth": (0, 2048),
    }  # fmt: skip
    a = {name: choices[int(random.integers(len(choices)))] for name, choices in values.items()}
    other = {name: next(value for value in (*choices, None) if value != a[name]) for name, choices in values.items()}
    b = a | {name: other[name] for name in (*compared, *((changed,) if changed else ()))}
    speeds = ({name: float(random.uniform(1, 90)) for name in RESULTS} for _ in range(2))
    rows = tuple(row | speed for row, speed in zip((a, b), speeds, strict=True))
    return {"claim": "a claim", "compared": compared, "rows": rows}


@graded(LAB, "3. two unfair comparisons")
def unfair(answer: Answer) -> str:
    """`unfair(claims) -> [places]` of those that differ in more than what they compare."""
    mistakes = (*UNFAIR_MISTAKES, *_ignored_settings(), COUNTED)
    changed = ({1: "n_threads", 4: "n_depth"}, {0: "flash_attn", 2: "type_k"}, {3: "n_batch", 5: "build_commit"})
    for seed, changes in enumerate(changed):
        case = translate("table {number} of 3", number=seed + 1)
        claims = claims_with(changes, hidden_seed(seed))
        expect_equal(answer, (claims,), _unfair, mistakes, case=case)
    return "three tables, two unfair comparisons in each."


ITEMS = (tokens_per_second, share_of_roof, unfair, perplexity_of, differ)

__all__ = ["ITEMS", "LAB", "Scored", "differ", "perplexity_of", "score", "share_of_roof", "tokens_per_second", "unfair"]


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
