"""Compare two benchmark runs: ratio of the mean speeds with a 95 % confidence interval.

The interval is Welch's for the logarithm of the ratio. The variance of ln(mean) is the sample variance / (n mean^2)
(the delta method); the two variances add up; Student's t has the degrees of freedom of Welch and Satterthwaite
(B. L. Welch, Biometrika 34, 1947). The method assumes independent repetitions: differences between processes, days or
temperatures are in the interval only if the repetitions come from several of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.special import stdtrit

from minillama.errors import FormatError, ResourceError
from minillama.measure.sample_statistics import deviation, mean
from minillama.measure.speed.bench_record import Record
from minillama.measure.tables import Column
from minillama.measure.trial import Trial

CONFIDENCE = 0.95
_SETTINGS = ("n_batch", "n_ubatch", "type_k", "type_v", "n_gpu_layers")  # distinguish tests that are otherwise equal


@dataclass(frozen=True)
class BenchResult:
    """One test of one run of minillama or llama-bench; speeds in tokens per second."""

    model: str  # the file's name
    trial: Trial
    n_threads: int
    settings: tuple[object, ...]
    speeds: tuple[float, ...]

    @property
    def key(self) -> tuple[str, Trial, int]:
        return self.model, self.trial, self.n_threads


@dataclass(frozen=True)
class RunComparison:
    """One test in both runs."""

    base: BenchResult
    new: BenchResult

    @property
    def ratio(self) -> float:
        """Mean speed of the new run / mean speed of the base."""
        return mean(self.new.speeds) / mean(self.base.speeds)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Confidence interval of the ratio; None if one of the runs has a single sample."""
        return ratio_interval(self.base.speeds, self.new.speeds)

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return "run once"
        low, high = self.interval
        return "faster" if low > 1 else "slower" if high < 1 else "no difference seen"

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        low, high = self.interval or (None, None)
        return {
            "model": self.base.model,
            "test": self.base.trial.name,
            "n_threads": self.base.n_threads,
            "base_samples_ts": list(self.base.speeds),
            "new_samples_ts": list(self.new.speeds),
            "base_avg_ts": mean(self.base.speeds),
            "new_avg_ts": mean(self.new.speeds),
            "ratio": self.ratio,
            "ratio_low": low,
            "ratio_high": high,
            "confidence": CONFIDENCE,
            "verdict": self.verdict,
        }


def ratio_interval(
    base: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Confidence interval of mean(new) / mean(base); None with fewer than two samples on a side."""
    if min(len(base), len(new)) < 2:
        return None
    parts = [((deviation(xs) / mean(xs)) ** 2 / len(xs), len(xs) - 1) for xs in (base, new)]
    variance = sum(part for part, _ in parts)
    centre = math.log(mean(new) / mean(base))
    if not variance:
        return math.exp(centre), math.exp(centre)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(variance)
    return math.exp(centre - half), math.exp(centre + half)


def compare_results(base: Sequence[BenchResult], new: Sequence[BenchResult]) -> list[RunComparison]:
    """Compare the tests that both runs have, in the order of the new run.

    Tests match by model file, test and threads. If several tests match, batch sizes, cache types and GPU layers must
    be equal too.
    """
    found = []
    for run in new:
        same = [other for other in base if other.key == run.key]
        same_new = [other for other in new if other.key == run.key]
        if len(same) > 1 or len(same_new) > 1:
            same = [other for other in same if other.settings == run.settings]
        found += [RunComparison(other, run) for other in same[-1:]]
    return found


def result_of(record: Record) -> BenchResult:
    """The comparable result of a record."""
    return _result(record.as_dict())


def read_results(path: Path) -> list[BenchResult]:
    """Read the results in a JSON or JSON-lines file of minillama or llama-bench.

    Raises ResourceError for a file that cannot be read, FormatError for other content.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(f"{path}: cannot be read ({error}); name a file of results in JSON") from error
    try:
        found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in _values(text)]
        if len(found) == 1 and "results" in found[0]:  # the output of a comparison
            found = found[0]["results"]
        return [_result(values) for values in found]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: no benchmark results in JSON or JSON lines ({error})") from error


def run_comparison_columns() -> tuple[Column[RunComparison], ...]:
    """Columns of the comparison table."""
    return (
        Column("model", 30, lambda c: c.base.model, left=True),
        Column("threads", 7, lambda c: str(c.base.n_threads)),
        Column("test", 15, lambda c: c.base.trial.name),
        Column("base t/s", 20, lambda c: _mean_and_deviation(c.base)),
        Column("t/s", 20, lambda c: _mean_and_deviation(c.new)),
        Column("ratio", 6, lambda c: f"{c.ratio:.3f}"),
        Column("95 % interval", 15, lambda c: "" if c.interval is None else "{:.3f} - {:.3f}".format(*c.interval)),
        Column("", 18, lambda c: c.verdict, left=True),
    )


def _values(text: str) -> list[str]:
    """One JSON object per line, or a single one over all lines."""
    return [text] if text.startswith("{\n") else text.splitlines()


def _mean_and_deviation(run: BenchResult) -> str:
    return f"{mean(run.speeds):.2f} ± {deviation(run.speeds):.2f}"


def _result(values: Mapping[str, object]) -> BenchResult:
    numbers = [int(values[name]) for name in ("n_prompt", "n_gen", "n_depth")]  # type: ignore[call-overload]
    speeds = tuple(float(speed) for speed in values["samples_ts"])  # type: ignore[union-attr,attr-defined]
    if not speeds or not all(0 < speed < math.inf for speed in speeds):
        raise ValueError("samples_ts should be speeds above 0")
    settings = tuple(values.get(name) for name in _SETTINGS)
    return BenchResult(
        Path(str(values["model_filename"])).name, Trial(*numbers), int(values["n_threads"]), settings, speeds
    )  # type: ignore[call-overload]
