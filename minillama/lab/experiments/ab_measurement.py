"""One change at a time: run a setting in a process of its own, compare two by turns, and keep the prediction first."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from minillama.engine.llm import LLM
from minillama.env import MINILLAMA
from minillama.lab.grading import lab_record
from minillama.lab.plots.measurement_plots import SpeedUpStep
from minillama.measure.host.child_process import run_for_json

KERNELS = "MINILLAMA_CPU_KERNELS"  # not a flag: llama.cpp chooses its kernels when it is compiled or loaded
TUNABLE_FLAGS = ("-t", "-b", "-ub", "-ctk", "-ctv", "-ngl", KERNELS)
Flags = Mapping[str, str]  # a flag of `minillama bench`, or the variable above, and its value
Measure = Callable[[Flags], float]


@dataclass(frozen=True)
class Change:
    """One flag and its new value, and by what factor its author says that it makes things faster."""

    flag: str
    value: str
    predicted: float

    @property
    def name(self) -> str:
        """As one would type it."""
        return f"{self.flag.replace(KERNELS, 'kernels')} {self.value}"


@dataclass(frozen=True)
class Gain:
    """Speeds of two settings that were measured by turns."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """How many times faster in each turn, which compares two neighbours in time."""
        return [after / before for before, after in zip(self.before, self.after, strict=True)]

    @property
    def ratio(self) -> float:
        """How many times faster: the median over the turns."""
        return median(self.ratios)

    @property
    def spread(self) -> float:
        """By what factor the turns differ among themselves; a ratio nearer to 1 than this says nothing."""
        return max(self.ratios) / min(self.ratios)


def command(model: Path, flags: Flags, test: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command line of a measurement, which is what one would type, and its environment variables."""
    words = [word for flag, value in flags.items() if flag != KERNELS for word in (flag, value)]
    environment = {KERNELS: flags[KERNELS]} if KERNELS in flags else {}
    return (*MINILLAMA, "bench", "-m", str(model), *test, *words, "-o", "json"), environment


def tokens_per_second(model: Path, flags: Flags, test: Sequence[str]) -> float:
    """Tokens a second of one test of `minillama bench`, in a process of its own: what is settled at the start is too.

    Raises ResourceError, in one line, where the setting cannot run here.
    """
    words, environment = command(model, flags, test)
    (found,) = run_for_json(words, {**os.environ, **environment})
    return float(found["avg_ts"])  # type: ignore[arg-type]


def measure_interleaved(before: Callable[[], float], after: Callable[[], float], rounds: int = 2) -> Gain:
    """Measure A B A B ...: whatever else changes meanwhile changes for both."""
    pairs = [(before(), after()) for _ in range(rounds)]
    return Gain(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def try_changes(lab: str, start: Flags, changes: Sequence[Change], measure: Measure) -> Iterator[tuple[Change, Gain]]:
    """Put one change on top of the other and measure each against what was before, its prediction recorded first.

    A change that was measured before on the same grounds is not measured again, and its first prediction stays.
    """
    flags = dict(start)
    for change in changes:
        changed = {**flags, change.flag: change.value}
        entry = json.dumps([flags, changed], sort_keys=True)
        if entry not in lab_record.section(lab, "predictions"):
            said = {"said": change.predicted, "unit": "times", "written": lab_record.now()}
            lab_record.write(lab, "predictions", entry, said)
        found = _measured(lab_record.section(lab, "measurements").get(entry))
        if found is None:
            found = measure_interleaved(lambda flags=flags: measure(flags), lambda changed=changed: measure(changed))
            kept = {"value": found.ratio, "unit": "times", "before": found.before, "after": found.after}
            lab_record.write(lab, "measurements", entry, kept | {"written": lab_record.now()})
        said = lab_record.section(lab, "predictions")[entry]
        yield Change(change.flag, change.value, float(said["said"])), found  # type: ignore[index]
        flags = changed


def waterfall_steps(tried: Sequence[tuple[Change, Gain]]) -> list[SpeedUpStep]:
    """The same for a waterfall."""
    return [SpeedUpStep(change.name, change.predicted, gain.ratio) for change, gain in tried]


def _measured(entry: object) -> Gain | None:
    """A gain out of the records."""
    if not isinstance(entry, dict):
        return None
    return Gain(tuple(map(float, entry["before"])), tuple(map(float, entry["after"])))


def measure_grid(
    model: Path, start: Flags, rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]], test: Sequence[str]
) -> Iterator[tuple[tuple[str, str], float]]:
    """Every combination of two flags' values: (row, column) and tokens a second."""
    for row in rows[1]:
        for column in columns[1]:
            yield (row, column), tokens_per_second(model, {**start, rows[0]: row, columns[0]: column}, test)


def generation_speed(
    llm: LLM, prompt: str | Sequence[int], *, n: int = 64, lookup: bool = False, temp: float = 0.0
) -> float:
    """Tokens a second of a text, without its end token."""
    return llm.generate(prompt, n=n, temp=temp, lookup=lookup, ignore_eos=True, seed=1).timings.generated_per_second


def is_positive_factor(value: object) -> bool:
    """Whether a prediction is a factor that speeds can be multiplied by."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
