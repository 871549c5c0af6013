"""Interleaved A/B measurement of minillama and llama.cpp.

The programs run alternately (A B A B ...), one process at a time.
The speed of a machine drifts with its temperature and other load. Therefore each run of minillama is compared with
the run of llama.cpp right after it, and the result is the median of these ratios.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from minillama.errors import ResourceError
from minillama.measure.host.child_process import ProcessStats, measure_process, run_for_json
from minillama.measure.speed.bench_plan import Setup, Workload
from minillama.measure.speed.bench_record import Record, from_json
from minillama.measure.trial import Trial

START_CONTEXT = 4096  # tokens of context in measurements of the process start


@dataclass(frozen=True)
class Round:
    """One run of each program: results by test."""

    ours: Mapping[Trial, Record]
    theirs: Mapping[Trial, float]  # tokens per second
    build: str  # of llama.cpp


@dataclass(frozen=True)
class Comparison:
    """Speeds of one test in tokens per second, in the order of the rounds."""

    setup: Setup
    trial: Trial
    record: Record  # minillama's first one
    build: str  # of llama.cpp
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    bandwidth: float | None  # bytes per second that this number of threads reads from memory

    @property
    def ratios(self) -> tuple[float, ...]:
        """Speed of minillama / speed of llama.cpp, per round."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """Median ratio."""
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio."""
        return min(self.ratios), max(self.ratios)

    def share(self, speed: float) -> float | None:
        """Share of the memory bandwidth at a decode speed; None for prompts."""
        if self.trial.n_prompt or self.record.bytes_per_token is None or self.bandwidth is None:
            return None
        return self.record.bytes_per_token * speed / self.bandwidth

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        shared = ("model_filename", "model_type", "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads",
                  "type_k", "type_v", "n_gpu_layers", "n_prompt", "n_gen", "n_depth", "bytes_per_token")  # fmt: skip
        everything = self.record.as_dict()
        return {
            **{name: everything[name] for name in shared},
            "test": self.trial.name,
            "memory_bandwidth": self.bandwidth,
            "ours": _side(self.record.build_commit, self.ours, self.share(median(self.ours))),
            "theirs": _side(self.build, self.theirs, self.share(median(self.theirs))),
            "ratios": list(self.ratios),
            "ratio": self.ratio,
            "ratio_min": self.spread[0],
            "ratio_max": self.spread[1],
        }


@dataclass(frozen=True)
class StartComparison:
    """Whole processes that read a short prompt and write one token.

    The page cache is warm. The values are in the order of the rounds.
    """

    setup: Setup
    ours: tuple[ProcessStats, ...]
    theirs: tuple[ProcessStats, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        sides = {"ours": self.ours, "theirs": self.theirs}
        return {
            "model_filename": str(self.setup.model),
            "n_threads": self.setup.n_threads,
            "type_k": self.setup.type_k,
            "type_v": self.setup.type_v,
            "ctx_size": START_CONTEXT,
            **{
                name: {
                    "first_text_seconds": [stats.first_text for stats in side],
                    "seconds": [stats.seconds for stats in side],
                    "peak_bytes": [stats.peak for stats in side],
                    "median_first_text_seconds": median(stats.first_text for stats in side),
                    "median_peak_bytes": median(stats.peak for stats in side),
                }
                for name, side in sides.items()
            },
        }


def interleave_benchmarks(
    ours: Sequence[str], theirs: Sequence[str], trials: Sequence[Trial], rounds: int
) -> Iterator[Round]:
    """Run two benchmark commands alternately and yield the results of each round.

    ours, theirs: commands that print llama-bench's JSON for these tests.
    Raises ResourceError if a program fails or has no result for a test.
    """
    name = Path(theirs[0]).name
    for _ in range(rounds):
        records = [from_json(found) for found in run_for_json(ours)]
        others = run_for_json(theirs)
        speeds = _speeds(name, others)
        missing = [trial.name for trial in trials if trial not in speeds]
        if missing:
            raise ResourceError(f"{name} gave no result for {missing[0]}")
        by_trial = {Trial(record.n_prompt, record.n_gen, record.n_depth): record for record in records}
        yield Round(by_trial, speeds, f"{others[0].get('build_commit')} ({others[0].get('build_number')})")


def compare_rounds(
    setup: Setup, workload: Workload, rounds: Sequence[Round], bandwidth: float | None
) -> tuple[Comparison, ...]:
    """The rounds of a setup, test by test; empty without rounds."""
    if not rounds:
        return ()
    return tuple(
        Comparison(
            setup,
            trial,
            rounds[0].ours[trial],
            rounds[0].build,
            tuple(each.ours[trial].avg_ts for each in rounds),
            tuple(each.theirs[trial] for each in rounds),
            bandwidth,
        )
        for trial in workload.trials()
    )


def interleave_starts(
    ours: Sequence[str], theirs: Sequence[str], rounds: int
) -> Iterator[tuple[ProcessStats, ProcessStats]]:
    """Measure two commands alternately as whole processes, after one unmeasured run of each."""
    measure_process(ours)
    measure_process(theirs)
    for _ in range(rounds):
        yield measure_process(ours), measure_process(theirs)


def _speeds(program: str, found: Sequence[Mapping[str, object]]) -> dict[Trial, float]:
    speeds = {}
    for values in found:
        try:
            trial = Trial(*(int(values[name]) for name in ("n_prompt", "n_gen", "n_depth")))  # type: ignore[call-overload]
            speeds[trial] = float(values["avg_ts"])  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise ResourceError(f"{program} printed results without n_prompt, n_gen, n_depth and avg_ts") from error
        if not speeds[trial] > 0:
            raise ResourceError(f"{program} measured {speeds[trial]} tokens a second for {trial.name}")
    return speeds


def _side(build: str, speeds: Sequence[float], share: float | None) -> dict[str, object]:
    return {"build": build, "samples_ts": list(speeds), "median_ts": median(speeds), "bandwidth_share": share}
