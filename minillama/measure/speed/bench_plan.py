"""What is measured: lists of values, ranges included, and all their combinations, in llama-bench's order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from minillama.engine.loading.device_sharing import Sharing

MOST_VALUES = 1000  # of one range; more is a slip
ALL_LAYERS = -1  # n_gpu_layers: as many as there are

_RANGE = re.compile(r"(-?[0-9]{1,9})(?:-([0-9]{1,9})(?:([+*])([0-9]{1,9}))?)?")


def numbers(text: str, *, least: int = 0) -> tuple[int, ...]:
    """The values of a list as `512`, `128,256`, `1-4` (1 2 3 4), `0-1024+512` (0 512 1024) or `16-64*2` (16 32 64).

    Raises ValueError, in one line, for anything else and for a value below `least`.
    """
    values: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part!r} should be a number, or a range as 1-4, 0-1024+512 or 16-128*2")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        step = int(match[4]) if match[4] else 1
        if min(first, last) < least:
            raise ValueError(f"{part!r} should be at least {least}")
        if last < first:
            raise ValueError(f"{part!r} ends before it begins")
        values += _climb(part, first, last, match[3] or "+", step)
    return tuple(values)


def _climb(part: str, first: int, last: int, sign: str, step: int) -> list[int]:
    values = []
    value = first
    while value <= last:
        values.append(value)
        following = value + step if sign == "+" else value * step
        if following <= value or len(values) > MOST_VALUES:
            raise ValueError(f"{part!r} does not get to its end within {MOST_VALUES} values")
        value = following
    return values


@dataclass(frozen=True)
class Trial:
    """One test: a prompt of random tokens, then tokens generated one by one, behind `n_depth` tokens of context."""

    n_prompt: int
    n_gen: int
    n_depth: int = 0

    @property
    def name(self) -> str:
        """As llama-bench calls it: `pp512`, `tg128`, `pp512+tg128`, `tg128 @ d2048`."""
        parts = [f"{kind}{count}" for kind, count in (("pp", self.n_prompt), ("tg", self.n_gen)) if count]
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def positions(self) -> int:
        """Tokens of context that it takes."""
        return self.n_prompt + self.n_gen + self.n_depth


@dataclass(frozen=True)
class Workload:
    """The tests of one setup: every prompt length, every generation length and every pair, at every depth."""

    n_prompt: tuple[int, ...] = (512,)
    n_gen: tuple[int, ...] = (128,)
    n_pg: tuple[tuple[int, int], ...] = ()
    n_depth: tuple[int, ...] = (0,)

    def trials(self) -> tuple[Trial, ...]:
        """In llama-bench's order; a length of 0 is no test."""
        pairs = [*((prompt, 0) for prompt in self.n_prompt), *((0, gen) for gen in self.n_gen), *self.n_pg]
        return tuple(Trial(*pair, depth) for depth in self.n_depth for pair in pairs if any(pair))

    def flags(self) -> tuple[str, ...]:
        """The same as options of the command line, which are alike for `minillama bench` and llama-bench."""
        lists = (("-p", self.n_prompt), ("-n", self.n_gen), ("-d", self.n_depth))
        words = [word for name, values in lists for word in (name, ",".join(map(str, values or (0,))))]
        return (*words, *(word for prompt, gen in self.n_pg for word in ("-pg", f"{prompt},{gen}")))


@dataclass(frozen=True)
class Setup:
    """Under what a workload is measured; the fields are llama-bench's."""

    model: Path
    n_threads: int
    n_gpu_layers: int = ALL_LAYERS
    n_batch: int = 2048
    n_ubatch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    load_mode: str = "auto"

    def flags(self) -> tuple[str, ...]:
        """The same as options of the command line; -ngl and -lm only where they were asked for."""
        layers = () if self.n_gpu_layers == ALL_LAYERS else ("-ngl", str(self.n_gpu_layers))
        mode = () if self.load_mode == "auto" else ("-lm", self.load_mode)
        return ("-m", str(self.model), "-t", str(self.n_threads), "-b", str(self.n_batch), "-ub", str(self.n_ubatch),
                "-ctk", self.type_k, "-ctv", self.type_v, *layers, *mode)  # fmt: skip


def sharing_flags(sharing: Sharing) -> tuple[str, ...]:
    """Who shares the work as options of the command line, where that was asked for; workers have one leader only."""
    split = () if sharing.split_mode is None else ("-sm", sharing.split_mode)
    shares = ("-ts", "/".join(map(str, sharing.tensor_split))) if sharing.tensor_split else ()
    return (*split, *shares, "-mg", str(sharing.main_gpu), "-tp", str(sharing.tensor_parallel))


@dataclass(frozen=True)
class Plan:
    """Lists of values; `setups` are their combinations, the model changing last."""

    models: tuple[Path, ...]
    n_threads: tuple[int, ...]
    n_gpu_layers: tuple[int, ...] = (ALL_LAYERS,)
    n_batch: tuple[int, ...] = (2048,)
    n_ubatch: tuple[int, ...] = (512,)
    type_k: tuple[str, ...] = ("f16",)
    type_v: tuple[str, ...] = ("f16",)
    load_mode: tuple[str, ...] = ("auto",)
    workload: Workload = Workload()

    def setups(self) -> Iterator[Setup]:
        """All combinations, in llama-bench's order."""
        for model, layers, mode, batch, ubatch, type_k, type_v, threads in product(
            self.models, self.n_gpu_layers, self.load_mode, self.n_batch, self.n_ubatch, self.type_k, self.type_v,
            self.n_threads,
        ):  # fmt: skip
            yield Setup(model, threads, layers, batch, ubatch, type_k, type_v, mode)
