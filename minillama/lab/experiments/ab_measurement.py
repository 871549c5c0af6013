"""Interleaved A/B measurements of settings, each run in a separate process.

A change's prediction is recorded before its measurement."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from minillama.engine.llm import LLM
from minillama.env import MINILLAMA
from minillama.lab import lab_record
from minillama.lab.language import translate
from minillama.lab.measuring import measuring
from minillama.lab.plots.measurement_plots import SpeedUpStep
from minillama.lab.widgets.running_line import collect
from minillama.measure.host.child_process import run_for_json

KERNELS = "MINILLAMA_CPU_KERNELS"  # a variable, not a flag: llama.cpp chooses its kernels at build or load time
TUNABLE_FLAGS = ("-t", "-b", "-ub", "-ctk", "-ctv", "-ngl", KERNELS)
Flags = Mapping[str, str]  # a flag of `minillama bench`, or the variable above, and its value
Measure = Callable[[Flags], float]


@dataclass(frozen=True)
class Change:
    """One flag, its new value, and the predicted speed-up factor."""

    flag: str
    value: str
    predicted: float

    @property
    def name(self) -> str:
        """Flag and value, as on a command line."""
        return f"{self.flag.replace(KERNELS, 'kernels')} {self.value}"


@dataclass(frozen=True)
class Gain:
    """Speeds of two settings from an interleaved A/B measurement."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Speed-up of each round; the two runs of a round are neighbours in time."""
        return [after / before for before, after in zip(self.before, self.after, strict=True)]

    @property
    def ratio(self) -> float:
        """Speed-up: the median over the rounds."""
        return median(self.ratios)

    @property
    def spread(self) -> float:
        """Largest over smallest ratio of the rounds.

        A speed-up closer to 1 than this is not significant."""
        return max(self.ratios) / min(self.ratios)


def command(model: Path, flags: Flags, test: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Command line and environment variables of a measurement."""
    words = [word for flag, value in flags.items() if flag != KERNELS for word in (flag, value)]
    environment = {KERNELS: flags[KERNELS]} if KERNELS in flags else {}
    return (*MINILLAMA, "bench", "-m", str(model), *test, *words, "-o", "json"), environment


def tokens_per_second(model: Path, flags: Flags, test: Sequence[str]) -> float:
    """Tokens/s of one test of `minillama bench`, run in a separate process.

    Some settings are fixed when a process starts. Raises ResourceError, in one line, if the setting cannot run here.
    """
    words, environment = command(model, flags, test)
    (found,) = run_for_json(words, {**os.environ, **environment})
    return float(found["avg_ts"])  # type: ignore[arg-type]


def measure_interleaved(before: Callable[[], float], after: Callable[[], float], rounds: int = 2) -> Gain:
    """Measure A B A B ...: drift of the machine affects both sides equally."""
    runs = (run() for _ in range(rounds) for run in (before, after))
    speeds = collect(runs, translate("runs, A and B in turn"), 2 * rounds)
    return Gain(tuple(speeds[::2]), tuple(speeds[1::2]))


def try_changes(lab: str, start: Flags, changes: Sequence[Change], measure: Measure) -> Iterator[tuple[Change, Gain]]:
    """Apply the changes one after another; measure each against the previous setting.

    The prediction is recorded before the measurement. A change with a recorded measurement from the same setting is not
    measured again and keeps its first prediction.
    """
    flags = dict(start)
    for change in changes:
        changed = {**flags, change.flag: change.value}
        entry = json.dumps([flags, changed], sort_keys=True)
        predicted = lab_record.number(lab_record.section(lab, "predictions").get(entry), "said")
        if predicted is None:
            predicted = change.predicted
            said = {"said": predicted, "unit": "times", "written": lab_record.now()}
            lab_record.write(lab, "predictions", entry, said)
        found = _measured(lab_record.section(lab, "measurements").get(entry))
        if found is None:
            found = measure_interleaved(lambda flags=flags: measure(flags), lambda changed=changed: measure(changed))
            kept = {"value": found.ratio, "unit": "times", "before": found.before, "after": found.after}
            lab_record.write(lab, "measurements", entry, kept | {"written": lab_record.now()})
        yield Change(change.flag, change.value, predicted), found
        flags = changed


def waterfall_steps(tried: Sequence[tuple[Change, Gain]]) -> list[SpeedUpStep]:
    """Measured changes as steps of a waterfall figure."""
    return [SpeedUpStep(change.name, change.predicted, gain.ratio) for change, gain in tried]


def _measured(entry: object) -> Gain | None:
    """A recorded gain; None if there is none, or if it is malformed."""
    sides = [entry.get(side) for side in ("before", "after")] if isinstance(entry, dict) else []
    speeds = [tuple(side) for side in sides if isinstance(side, list) and side and all(map(is_positive_factor, side))]
    return Gain(*speeds) if len(speeds) == 2 and len(speeds[0]) == len(speeds[1]) else None


def measure_grid(
    model: Path, start: Flags, rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]], test: Sequence[str]
) -> Iterator[tuple[tuple[str, str], float]]:
    """Measure every combination of two flags' values: (row, column), tokens/s."""
    for row in rows[1]:
        for column in columns[1]:
            yield (row, column), tokens_per_second(model, {**start, rows[0]: row, columns[0]: column}, test)


@measuring("generated texts of a lab")
def generation_speed(
    llm: LLM, prompt: str | Sequence[int], *, n: int = 64, lookup: bool = False, temp: float = 0.0
) -> float:
    """Tokens/s of a generated text; the end token is ignored."""
    return llm.generate(prompt, n=n, temp=temp, lookup=lookup, ignore_eos=True, seed=1).timings.generated_per_second


def is_positive_factor(value: object) -> bool:
    """True for a finite positive number."""
    number = lab_record.finite(value)
    return number is not None and number > 0
