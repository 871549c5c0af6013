"""The figures of a load test, under the names of vLLM's benchmark.

TTFT: from sending to the first text. ITL: between two pieces of text. TPOT: mean ITL of a request. E2EL: from sending
to the end. Goodput: requests per second that meet all limits (DistServe, https://arxiv.org/abs/2401.09670).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median, median_high

import numpy as np

from minillama.measure.serving.load_generator import Outcome

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles of times, in milliseconds; zeros without values."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True)
class LoadFigures:
    """The figures of one run."""

    seconds: float
    requests: int
    errors: int
    requests_per_second: float
    output_tokens: int
    output_tokens_per_second: float
    prompt_tokens: int
    cached_tokens: int
    in_flight: float  # mean number of requests in the server: their time in it, by the time of the run
    ttft_ms: Spread
    itl_ms: Spread
    tpot_ms: Spread
    e2el_ms: Spread
    goodput: float | None = None  # requests per second within the limits; None without limits

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


# Figure of a request, in milliseconds; None where the answer has none.
LIMITS: dict[str, Callable[[Outcome], float | None]] = {
    "ttft": lambda outcome: None if outcome.first_text is None else 1e3 * outcome.first_text,
    "tpot": lambda outcome: 1e3 * float(np.mean(outcome.gaps)) if outcome.gaps else None,
    "itl": lambda outcome: 1e3 * max(outcome.gaps) if outcome.gaps else None,  # the longest gap of the answer
    "e2el": lambda outcome: 1e3 * outcome.total,
}


def figures(outcomes: Sequence[Outcome], seconds: float, limits: Mapping[str, float] | None = None) -> LoadFigures:
    """The figures of one run.

    seconds: of the whole run. limits: milliseconds, by the names in `LIMITS`.
    """
    good = [outcome for outcome in outcomes if outcome.error is None]
    tokens = sum(outcome.tokens for outcome in good)

    def spread(name: str) -> Spread:
        values = (LIMITS[name](outcome) for outcome in good)
        return spread_of([value for value in values if value is not None])

    return LoadFigures(
        seconds=seconds,
        requests=len(outcomes),
        errors=len(outcomes) - len(good),
        requests_per_second=len(good) / seconds,
        output_tokens=tokens,
        output_tokens_per_second=tokens / seconds,
        prompt_tokens=sum(outcome.prompt_tokens for outcome in good),
        cached_tokens=sum(outcome.cached_tokens for outcome in good),
        in_flight=sum(outcome.total for outcome in outcomes) / seconds,
        ttft_ms=spread("ttft"),
        itl_ms=spread_of([1e3 * gap for outcome in good for gap in outcome.gaps]),
        tpot_ms=spread("tpot"),
        e2el_ms=spread("e2el"),
        goodput=sum(meets(outcome, limits) for outcome in good) / seconds if limits else None,
    )


def meets(outcome: Outcome, limits: Mapping[str, float]) -> bool:
    """True if an answer is within all limits; a missing figure is within them."""
    found = {name: LIMITS[name](outcome) for name in limits}
    return all(value is None or value <= limits[name] for name, value in found.items())


def spread_of(milliseconds: Sequence[float]) -> Spread:
    """Mean and percentiles, with linear interpolation."""
    if not milliseconds:
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    return Spread(float(np.mean(milliseconds)), *map(float, np.percentile(milliseconds, PERCENTILES)))


def median_figures(runs: Sequence[LoadFigures]) -> LoadFigures:
    """Figure by figure, the median of several runs."""
    values: dict[str, object] = {}
    for each in fields(LoadFigures):
        found = [getattr(run, each.name) for run in runs]
        if isinstance(found[0], Spread):
            parts = {part.name: median(getattr(spread, part.name) for spread in found) for part in fields(Spread)}
            values[each.name] = Spread(**parts)
        elif isinstance(found[0], int):
            values[each.name] = median_high(found)
        else:
            values[each.name] = None if found[0] is None else median(found)
    return LoadFigures(**values)  # type: ignore[arg-type]


def error_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Each error once, with its count."""
    counts = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    return [f"{count} x {error}" for error, count in counts.most_common()]
