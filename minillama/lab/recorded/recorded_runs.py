"""Recorded runs of llama-bench, llama-perplexity and minillama (lab 10).

`record_runs` made the file; command, build, date and the load of other programs are in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import numpy as np

from minillama.array_types import Float
from minillama.measure.limits.roofline import Roofline
from minillama.measure.limits.work_per_token import Work
from minillama.measure.trial import Trial

FILE = Path(__file__).with_name("llama_cpp.json")
LLAMA, OURS = "llama-bench", "minillama bench"
STORYTELLER, LARGE, SMALLER = "storyteller-q8_0.gguf", "random-100-Q8_0.gguf", "random-100-Q4_0.gguf"
ROOF, DEPTH = "threads 1, Q8_0", 1024
RUN_LOAD = "run_load"  # in each row: share of the cores that other programs used during its run
RESULTS = ("avg_ts", "stddev_ts")
SETTINGS = ("program", "build_commit", "model_filename", "n_threads", "n_batch", "n_ubatch", "type_k", "type_v",
            "flash_attn", "n_prompt", "n_gen", "n_depth")  # fmt: skip
PROGRAM, MODEL, CACHE = ("program", "build_commit"), ("model_filename",), ("type_k", "type_v")

Row = Mapping[str, object]


@dataclass(frozen=True)
class SpeedRun:
    """One run of a benchmark."""

    program: str
    command: str
    date: str
    other_load: float  # share of the cores that other programs used meanwhile
    rows: tuple[Row, ...]  # of -o json
    table: tuple[str, ...]  # of -oe md, from the same run


@dataclass(frozen=True)
class ScoredRun:
    """One run of llama-perplexity."""

    command: str
    date: str
    build: str
    output: tuple[str, ...]  # windows, running perplexities, final estimate
    log_likelihoods: Float[np.ndarray, "scored"]  # natural logarithms, of the scored tokens in their order

    @property
    def ctx_size(self) -> int:
        """Tokens of a window."""
        words = self.command.split()
        return int(words[words.index("-c") + 1])

    @property
    def final(self) -> tuple[float, float]:
        """The printed perplexity and its error."""
        ppl, _, error = self.output[-1].partition("PPL = ")[2].partition(" +/- ")
        return float(ppl), float(error)

    def in_text(self) -> Float[np.ndarray, "T"]:
        """The log likelihoods at their places in the text; nan if not scored."""
        scored = self.ctx_size - 1 - self.ctx_size // 2
        values = self.log_likelihoods.reshape(-1, scored)
        return np.pad(values, ((0, 0), (self.ctx_size - scored, 0)), constant_values=np.nan).reshape(-1)


@dataclass(frozen=True)
class Records:
    """All recorded runs, the processor, and its roofs by threads and type."""

    processor: str
    cores: int
    roofs: Mapping[str, Roofline]
    speeds: tuple[SpeedRun, ...]
    scored: tuple[ScoredRun, ...]

    def row(
        self, program: str, model: str, test: str, depth: int = 0, *, threads: int = 1, type_k: str = "f16",
        flash_attn: int = -1,
    ) -> Row:  # fmt: skip
        """The row of one test; raises KeyError if it was not recorded."""
        wanted = {"model_filename": model, "n_depth": depth, "n_threads": threads, "type_k": type_k}
        for run in self.speeds:
            for row in run.rows:
                if (
                    run.program == program
                    and trial_name(row) == test
                    and row["flash_attn"] == flash_attn
                    and all(row[name] == value for name, value in wanted.items())
                ):
                    return row
        raise KeyError(f"no recorded run of {program}: {model}, {test}, depth {depth}, {threads} threads")

    def perplexity(self, name: str, ctx_size: int = 256) -> ScoredRun:
        """The perplexity of the storyteller as `f16`, `q8_0` or `q4_0`."""
        return next(run for run in self.scored if f"storyteller-{name}." in run.command and run.ctx_size == ctx_size)


def number(row: Row, name: str) -> float:
    """A numeric field of a row."""
    return float(str(row[name]))


def trial_name(row: Row) -> str:
    """The test without its depth, such as `pp512`."""
    return Trial(int(number(row, "n_prompt")), int(number(row, "n_gen"))).name


def settings(program: str, row: Row) -> dict[str, object]:
    """The settings of a row that matter on a CPU, and its results."""
    return {"program": program, **{name: row[name] for name in (*SETTINGS[1:], *RESULTS)}}


@once
def recorded() -> Records:
    """The recorded runs."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    extra = ("date", "other_load")
    roofs = {
        name: Roofline(**{key: value for key, value in roof.items() if key not in extra})
        for name, roof in found["roofs"].items()
    }
    speeds = [
        SpeedRun(run["program"], run["command"], run["date"], run["other_load"],
                 tuple({**row, RUN_LOAD: run["other_load"]} for row in run["rows"]), tuple(run["table"]))
        for run in found["runs"] if "rows" in run
    ]  # fmt: skip
    scored = [
        ScoredRun(run["command"], run["date"], run["build"], tuple(run["output"]), np.array(run["log_likelihoods"]))
        for run in found["runs"] if "output" in run
    ]  # fmt: skip
    machine = found["machine"]
    return Records(machine["processor"], machine["cores"], roofs, tuple(speeds), tuple(scored))


def recorded_work(model: str, test: str, depth: int = 0) -> Work:
    """Bytes and operations a token of a test, by minillama's formulas.

    The same weights and the same cache: so they hold for both programs.
    """
    row = recorded().row(OURS, model, test, depth)
    return Work(number(row, "bytes_per_token"), number(row, "flops_per_token"))


def decode_row(program: str, model: str, depth: int = 0) -> dict[str, float]:
    """Speed, tokens and bytes of a recorded decode test.

    weight_bytes: of the weights that a token reads. cache_bytes: of the keys and values of one position.
    """
    row = recorded().row(program, model, "tg64", depth)
    steps, shallow = number(row, "n_gen"), recorded_work(model, "tg64").bytes
    position = (recorded_work(model, "tg64", DEPTH).bytes - shallow) / DEPTH
    return {
        "avg_ts": number(row, "avg_ts"),
        "n_gen": int(steps),
        "n_depth": depth,
        "weight_bytes": round(shallow - position * (steps + 1) / 2),
        "cache_bytes": round(position),
    }
