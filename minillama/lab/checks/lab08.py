"""Graded items of lab 08: interleaved A/B, Amdahl's law, drafts, three changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minillama.env import CPU_KERNELS
from minillama.lab.experiments import ab_measurement
from minillama.lab.experiments.ab_measurement import KERNELS, TUNABLE_FLAGS, Change, Flags, Measure
from minillama.lab.grading.check import Answer, Mistake, NotYet, Score, as_array, call, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, real, share, whole
from minillama.lab.language import message, translate

LAB = "08"
MIN_CHANGES = 3  # changes


@dataclass
class Machine:
    """A simulated machine that slows down with every run; one run is disturbed."""

    ratio: float = 1.25  # true speed-up of B
    drift: float = 0.985  # per run
    runs: list[str] = field(default_factory=list)

    def run(self, name: str) -> float:
        """Tokens/s of A or B."""
        self.runs.append(name)
        count = len(self.runs)
        speed = 100.0 * self.drift**count * (self.ratio if name == "B" else 1.0)
        return speed * (0.4 if count == 5 else 1.0)

    def parts(self) -> tuple[Callable[[], float], Callable[[], float]]:
        """Arguments of the learner's function: before and after."""
        return lambda: self.run("A"), lambda: self.run("B")


@graded(LAB, "2. interleaved A/B")
def gain(answer: Answer) -> str:
    """`gain(before, after, rounds) -> how many times faster after is`."""
    ((ratio, drift),) = hidden_cases(802, real(1.3, 1.9), real(0.97, 0.99), count=1)
    for machine in (Machine(), Machine(ratio=0.8), Machine(ratio=1.0, drift=0.98), Machine(ratio, drift)):
        label = translate("a machine where the truth is {ratio}", ratio=machine.ratio)
        got = as_array(call(answer, *machine.parts(), 5, case=label))
        if got.shape != ():
            raise NotYet(translate("return one number; got an array of shape {shape}", shape=got.shape))
        runs, value = "".join(machine.runs), float(got)
        if not runs:
            raise NotYet("neither before() nor after() was called")
        if runs.count("A") < 5 or runs.count("B") < 5:
            raise NotYet(translate("5 rounds are 5 runs of each; you ran {runs}", runs=" ".join(runs)))
        if "AAA" in runs or "BBB" in runs:
            text = translate(
                "you ran {runs}: the machine got slower meanwhile, which affected only one side "
                "(you say {value:.2f}, the truth is {ratio}); run A B A B ...",
                runs=" ".join(runs), value=value, ratio=machine.ratio,
            )  # fmt: skip
            raise NotYet(text)
        if abs(value - machine.ratio) <= 0.05 * machine.ratio:
            continue
        if abs(value - 1 / machine.ratio) <= 0.05 / machine.ratio:
            raise NotYet("inverted: speeds are tokens a second, so the gain is after / before")
        if abs(value - (machine.ratio - 1)) <= 0.05:
            raise NotYet("give a factor: 1.25 for a quarter more, 1 for no change")
        if value > 5:
            text = translate(
                "you say {value:.3g}: is that a sum, a difference or percent? Return the factor after / before",
                value=value,
            )
            raise NotYet(text)
        text = translate(
            "you say {value:.3f}, the truth is {ratio}: one of the runs was disturbed. Take the *median* of "
            "the rounds' ratios; a mean or a best run lets a single run decide",
            value=value, ratio=machine.ratio,
        )  # fmt: skip
        raise NotYet(text)
    return "your number contains neither the drift nor the disturbance."


def _amdahl(share: float, factor: float) -> float:
    return 1 / (1 - share + share / factor)


@graded(LAB, "1. Amdahl's law")
def amdahl(answer: Answer) -> str:
    """`amdahl(share, factor) -> how many times faster the whole becomes`."""
    mistakes = (
        Mistake("that is the remaining time, as a share: the gain is one over it", lambda s, f: 1 - s + s / f),
        Mistake("the rest takes its time too: add 1 - share", lambda s, f: f / s if s else np.inf),
        Mistake("the rest takes its time too: add 1 - share", lambda s, f: s * f),
        Mistake("speeds do not add up, times do: add the times and take one over the sum", lambda s, f: 1 - s + s * f),
        Mistake("share and rest are exchanged: `share` is what becomes faster", lambda s, f: 1 / (s + (1 - s) / f)),
        Mistake("the part becomes shorter: share / factor, not share * factor", lambda s, f: 1 / (1 - s + s * f)),
    )
    cases = ((0.6, 2.0), (0.9, 4.0), (0.25, 1.5), (0.5, 0.5), (0.0, 8.0), (1.0, 3.0))
    for case in (*cases, *hidden_cases(801, share(), real(1.2, 20.0))):
        expect_equal(answer, case, _amdahl, mistakes, tolerance=1e-6, case=f"share={case[0]}, factor={case[1]}")
    got = as_array(call(answer, 0.75, np.inf, case=message("share=0.75, factor=infinity")))
    if not np.allclose(got, 4.0):
        raise NotYet("a part of 75 % that takes no time at all leaves 25 %: four times faster, and never more")
    return "in the end, the unchanged part decides."


def _lookup_gain(accept: float, drafted: int, cost: float) -> float:
    return (1 + accept * drafted) / cost


@graded(LAB, "3. when a draft pays")
def lookup_gain(answer: Answer) -> str:
    """`lookup_gain(accept, drafted, cost) -> how many times faster` decoding becomes."""
    mistakes = (
        Mistake("a pass also writes one token of the model's own: 1 + accept * drafted", lambda a, d, c: a * d / c),
        Mistake("it counts how many drafted tokens are *accepted*", lambda a, d, c: (1 + d) / c),
        Mistake("it counts how many drafted tokens are *accepted*", lambda a, d, c: d / c),
        Mistake("the pass is longer than one token's: divide by cost", lambda a, d, c: 1 + a * d),
        Mistake("the pass is longer than one token's: divide by cost", lambda a, d, c: (1 + a * d) * c),
        Mistake("inverted: tokens of a pass over its cost", lambda a, d, c: c / (1 + a * d)),
        Mistake("the model's own token is always right: 1 + accept * drafted", lambda a, d, c: a * (1 + d) / c),
    )
    cases = ((0.95, 7, 3.5), (0.2, 7, 3.5), (0.0, 3, 1.5), (1.0, 1, 1.0), (0.5, 15, 4.0))
    for case in (*cases, *hidden_cases(803, share(), whole(1, 16), real(1.1, 5.0))):
        expect_equal(answer, case, _lookup_gain, mistakes, tolerance=1e-6, case=f"accept={case[0]}, drafted={case[1]}")
    return "it pays where accept * drafted is more than cost - 1."


class Changes:
    """State of exercise 4: the start setting and the measure function."""

    def __init__(self) -> None:
        self.tried: list[tuple[Change, ab_measurement.Gain]] = []
        self.start: Flags = {}
        self.measure: Measure | None = None

    def on(self, start: Flags, measure: Measure) -> "Changes":
        """Set the start setting and the measure function."""
        self.start, self.measure = start, measure
        return self

    def examine(self, answer: Answer) -> str:
        """Check the plan, measure it, and keep the results."""
        self.tried = []
        plan = call(answer)
        if not isinstance(plan, list | tuple) or not all(isinstance(change, Change) for change in plan):
            raise NotYet("return a list of Change(flag, value, predicted)")
        _check_plan(plan, self.start)
        if self.measure is None:
            raise NotYet("run the cells above first: they define the start setting")
        self.tried = list(ab_measurement.try_changes(LAB, self.start, plan, self.measure))
        return "predicted first, then measured interleaved; the next cell shows the results."


def _check_plan(plan: Sequence[Change], start: Flags) -> None:
    """Raise NotYet for a plan without three different, predicted changes."""
    if len(plan) < MIN_CHANGES:
        text = translate(
            "{count} changes; {least} are wanted, each with a prediction", count=len(plan), least=MIN_CHANGES
        )
        raise NotYet(text)
    flags = dict(start)
    for change in plan:
        if change.flag not in TUNABLE_FLAGS:
            flags_text = ", ".join(TUNABLE_FLAGS)
            raise NotYet(translate("{flag!r} is none of {flags}", flag=change.flag, flags=flags_text))
        if change.flag == KERNELS and change.value not in CPU_KERNELS:
            text = message("{name} is one of {choices}, not {value!r}")
            raise NotYet(translate(text, name=KERNELS, choices=", ".join(CPU_KERNELS), value=change.value))
        if not isinstance(change.value, str):
            text = message("values are command-line words: write {value!r}, in quotes")
            raise NotYet(translate(text, value=str(change.value)))
        if not ab_measurement.is_positive_factor(change.predicted):
            text = message("{name}: predict a factor, 1.5 for half as much again; got {value!r}")
            raise NotYet(translate(text, name=change.name, value=change.predicted))
        if flags.get(change.flag) == change.value:
            raise NotYet(translate("{name} is already in the setting: nothing changes", name=change.name))
        flags[change.flag] = change.value
    if len({change.flag for change in plan}) < MIN_CHANGES:
        text = message("{least} different flags are needed: one flag three times is one idea")
        raise NotYet(translate(text, least=MIN_CHANGES))
    if all(change.predicted == 1 for change in plan):
        raise NotYet("a factor of 1 says that nothing happens: what do you expect of each, and why?")


plan = Changes()


@graded(LAB, "4. three changes, predicted and measured")
def changes(answer: Answer) -> str:
    """`changes() -> [Change(flag, value, predicted), ...]`; each is added to those before it."""
    return plan.examine(answer)


ITEMS = (amdahl, gain, lookup_gain, changes)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
