"""Ours and llama.cpp's on the same machine: A B A B ..., as separate processes, never both at once.

A machine's speed drifts with its heat and its other guests. So each of ours is compared with the one of theirs that
ran right after it, and of these ratios the median counts.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from minillama.errors import OptionError, ResourceError
from minillama.measure.host.child_process import MINILLAMA, Life, json_objects, whole_process
from minillama.measure.speed.bench_plan import Setup, Trial, Workload
from minillama.measure.speed.bench_record import Record, from_json

START_PROMPT = "Once upon a time, in a small house at the edge of a forest, there lived"
START_CONTEXT = 4096


@dataclass(frozen=True)
class Round:
    """One run of each program: its test results by test."""

    ours: Mapping[Trial, Record]
    theirs: Mapping[Trial, float]  # tokens a second
    build: str  # theirs


@dataclass(frozen=True)
class Comparison:
    """One test, over all rounds; speeds in tokens a second, in the order of the rounds."""

    setup: Setup
    trial: Trial
    record: Record  # the first of ours
    build: str  # theirs
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    bandwidth: float | None  # bytes a second that the machine's memory gives to that many threads

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by theirs, of each round."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """Their median."""
        return median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Their least and largest."""
        return min(self.ratios), max(self.ratios)

    def share(self, speed: float) -> float | None:
        """Of the memory's bandwidth, at a speed of decoding; None for prompts."""
        if self.trial.n_prompt or self.record.bytes_per_token is None or self.bandwidth is None:
            return None
        return self.record.bytes_per_token * speed / self.bandwidth

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
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
class Start:
    """Whole processes that read a short prompt and write one token, over all rounds; the page cache is warm."""

    setup: Setup
    ours: tuple[Life, ...]
    theirs: tuple[Life, ...]

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        sides = {"ours": self.ours, "theirs": self.theirs}
        return {
            "model_filename": str(self.setup.model),
            "n_threads": self.setup.n_threads,
            "type_k": self.setup.type_k,
            "type_v": self.setup.type_v,
            "ctx_size": START_CONTEXT,
            **{
                name: {
                    "first_text_seconds": [life.first_text for life in lives],
                    "seconds": [life.seconds for life in lives],
                    "peak_bytes": [life.peak for life in lives],
                    "median_first_text_seconds": median(life.first_text for life in lives),
                    "median_peak_bytes": median(life.peak for life in lives),
                }
                for name, lives in sides.items()
            },
        }


def find_program(path: str) -> Path:
    """The program that --against names; OptionError where there is none to run."""
    if Path(path).is_dir():
        raise OptionError(f"--against {path}: a folder; name the llama-bench in it")
    found = shutil.which(path)
    if found is None:
        why = "it cannot be executed" if Path(path).is_file() else "no such program"
        raise OptionError(f"--against {path}: {why}; name a llama-bench binary")
    return Path(found)


def find_completion(bench: Path) -> Path | None:
    """The llama-completion beside a llama-bench, where a process can be weighed at all."""
    beside = shutil.which(str(bench.absolute().with_name("llama-completion" + bench.suffix)))
    return Path(beside) if beside is not None and sys.platform != "win32" else None


def alternate(
    setup: Setup,
    workload: Workload,
    rounds: int,
    bench: Path,
    *,
    repetitions: int = 1,
    warmup: bool = True,
    device: str | None = None,
) -> Iterator[Round]:
    """Run all tests of a setup in ours, then in theirs, again and again.

    device: -dev, of ours. Raises ResourceError where a program fails or gives no result for a test.
    """
    flags = (*setup.flags(), *workload.flags(), "-r", str(repetitions), *(() if warmup else ("--no-warmup",)))
    ours_command = (*MINILLAMA, "bench", *flags, *_device(device), "-o", "json", "--inner")
    trials = workload.trials()
    for _ in range(rounds):
        ours = [from_json(found) for found in json_objects(ours_command)]
        theirs = json_objects((str(bench), *flags, "-o", "json"))
        speeds = _speeds(bench, theirs)
        missing = [trial.name for trial in trials if trial not in speeds]
        if missing:
            raise ResourceError(f"{bench.name} gave no result for {missing[0]}")
        by_trial = {Trial(record.n_prompt, record.n_gen, record.n_depth): record for record in ours}
        yield Round(by_trial, speeds, f"{theirs[0].get('build_commit')} ({theirs[0].get('build_number')})")


def compare(
    setup: Setup, workload: Workload, rounds: Sequence[Round], bandwidth: float | None
) -> tuple[Comparison, ...]:
    """The rounds of a setup, test by test; nothing where there is no round."""
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


def alternate_starts(
    setup: Setup, rounds: int, completion: Path, *, device: str | None = None
) -> Iterator[tuple[Life, Life]]:
    """Whole processes, ours and theirs in turn, each after a first run that is not counted."""
    flags = (*setup.flags(), "-c", str(START_CONTEXT), "-p", START_PROMPT, "-n", "1", "--temp", "0", "-s", "1",
             "-no-cnv", "--no-display-prompt")  # fmt: skip
    ours, theirs = (*MINILLAMA, "run", *flags, *_device(device)), (str(completion), *flags)
    whole_process(ours)
    whole_process(theirs)
    for _ in range(rounds):
        yield whole_process(ours), whole_process(theirs)


def _device(device: str | None) -> tuple[str, ...]:
    return () if device is None else ("-dev", device)


def _speeds(bench: Path, found: Sequence[Mapping[str, object]]) -> dict[Trial, float]:
    speeds = {}
    for values in found:
        try:
            trial = Trial(*(int(values[name]) for name in ("n_prompt", "n_gen", "n_depth")))  # type: ignore[call-overload]
            speeds[trial] = float(values["avg_ts"])  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise ResourceError(f"{bench.name} printed results without n_prompt, n_gen, n_depth and avg_ts") from error
        if not speeds[trial] > 0:
            raise ResourceError(f"{bench.name} measured {speeds[trial]} tokens a second for {trial.name}")
    return speeds


def _side(build: str, speeds: Sequence[float], share: float | None) -> dict[str, object]:
    return {"build": build, "samples_ts": list(speeds), "median_ts": median(speeds), "bandwidth_share": share}
