"""llama-batched-bench's test: prompts into several slots, then steps of all of them.

T_PP is the time of all prompts, with the first token of each; T_TG that of the steps. A step takes the likeliest token
of each text on the device, and the next step is dispatched before its tokens are read, as in a batch engine.
Random token ids are the prompts. All programs are compiled before the clock starts.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from minillama import env
from minillama.engine.batching.open_batch_engine import check_slots_fit
from minillama.engine.batching.slot_executor import SlotExecutor
from minillama.engine.llm import LLM
from minillama.engine.loading.memory_budget import round_up
from minillama.errors import OptionError
from minillama.measure.tables import Column
from minillama.sampling import Sampling


@dataclass(frozen=True)
class BatchedTrial:
    """pl texts with prompts of pp tokens and answers of tg.

    shared: one prompt for all, which is copied. separate: one text after the other.
    """

    pp: int
    tg: int
    pl: int
    shared: bool = False
    separate: bool = False

    @property
    def positions(self) -> int:
        """Tokens in all caches at the end, as llama-batched-bench counts them (N_KV)."""
        return self.pl * (self.pp + self.tg)


@dataclass(frozen=True)
class BatchedRecord:
    """One result, with the fields of llama-batched-bench; t_... in seconds, speed_... in tokens per second."""

    n_kv_max: int
    n_batch: int
    n_ubatch: int
    is_pp_shared: int
    n_threads: int
    pp: int
    tg: int
    pl: int
    n_kv: int
    t_pp: float
    speed_pp: float
    t_tg: float
    speed_tg: float
    t: float
    speed: float

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


class BatchedBench:
    """Slots for the largest of some trials, and their measurements.

    Raises OptionError for a prompt and an answer that do not fit in the context, ResourceError for too little memory.
    """

    def __init__(self, llm: LLM, trials: Sequence[BatchedTrial]) -> None:
        if not trials or any(min(trial.pp, trial.tg, trial.pl) < 1 for trial in trials):
            raise OptionError("each of -npp, -ntg and -npl should be 1 or more")
        self._llm, self._slots = llm, max(trial.pl for trial in trials)
        needed = max(trial.pp + trial.tg for trial in trials)
        if needed > llm.ctx_size:
            raise OptionError(f"a text of {needed} tokens does not fit in a context of {llm.ctx_size}; raise -c")
        capacity = round_up(needed)
        check_slots_fit(llm.backend, capacity, llm.cache_types, self._slots)
        self._executor = SlotExecutor(llm.backend, self._slots, capacity, llm.batches.ubatch_size, llm.cache_types)
        self._chain = llm.backend.chain(Sampling(temp=0.0))
        self._random = np.random.default_rng(0)

    def measure(self, trial: BatchedTrial, repetitions: int = 1) -> BatchedRecord:
        """Compile and warm up, then the medians of some runs."""
        self._run(BatchedTrial(trial.pp, 2, trial.pl, trial.shared, trial.separate))
        runs = [self._run(trial) for _ in range(repetitions)]
        prompt, steps = (median(run[part] for run in runs) for part in range(2))
        read = trial.pp if trial.shared else trial.pl * trial.pp
        written = trial.pl * trial.tg
        batches = self._llm.batches
        return BatchedRecord(
            n_kv_max=self._slots * self._executor.capacity, n_batch=batches.batch_size, n_ubatch=batches.ubatch_size,
            is_pp_shared=int(trial.shared), n_threads=env.thread_limits()[0], pp=trial.pp, tg=trial.tg, pl=trial.pl,
            n_kv=trial.positions, t_pp=prompt, speed_pp=read / prompt, t_tg=steps, speed_tg=written / steps,
            t=prompt + steps, speed=(read + written) / (prompt + steps),
        )  # fmt: skip

    def _run(self, trial: BatchedTrial) -> tuple[float, float]:
        """Seconds of the prompts and of the steps."""
        started = time.perf_counter()
        slots = range(trial.pl)
        self._prefill(trial)
        self._executor.read(self._executor.step(list(slots), [trial.pp - 1] * trial.pl))
        read = time.perf_counter()
        for group in [[slot] for slot in slots] if trial.separate else [list(slots)]:
            self._decode(group, trial)
        return read - started, time.perf_counter() - read

    def _prefill(self, trial: BatchedTrial) -> None:
        executor = self._executor
        for slot in range(trial.pl):
            *ids, last = self._prompt(trial.pp)
            if trial.shared and slot:
                executor.copy(0, slot, len(ids))
            else:
                executor.prefill(slot, 0, ids)
            executor.join(slot, self._chain, 0, [last])

    def _decode(self, group: list[int], trial: BatchedTrial) -> None:
        before = None
        for step in range(trial.tg):
            draw = self._executor.step(group, [trial.pp + step] * len(group))
            if before is not None:
                self._executor.read(before)
            before = draw
        if before is not None:
            self._executor.read(before)

    def _prompt(self, count: int) -> list[int]:
        return self._random.integers(self._llm.tokenizer.size, size=count).tolist()


def measure_batched(llm: LLM, trials: Sequence[BatchedTrial]) -> Iterator[BatchedRecord]:
    """Measure one trial after the other."""
    bench = BatchedBench(llm, trials)
    for trial in trials:
        yield bench.measure(trial)


def step_seconds(llm: LLM, rows: Sequence[int], *, steps: int = 12, repetitions: int = 3) -> dict[int, float]:
    """Median seconds of a step by its number of texts, after short prompts."""
    trials = [BatchedTrial(4, steps, count) for count in rows]
    bench = BatchedBench(llm, trials)
    return {trial.pl: bench.measure(trial, repetitions).t_tg / steps for trial in trials}


def batched_columns() -> list[Column[BatchedRecord]]:
    """The columns of llama-batched-bench's table."""
    return [
        Column("PP", 6, lambda record: str(record.pp)),
        Column("TG", 6, lambda record: str(record.tg)),
        Column("B", 4, lambda record: str(record.pl)),
        Column("N_KV", 6, lambda record: str(record.n_kv)),
        Column("T_PP s", 8, lambda record: f"{record.t_pp:.3f}"),
        Column("S_PP t/s", 8, lambda record: f"{record.speed_pp:.2f}"),
        Column("T_TG s", 8, lambda record: f"{record.t_tg:.3f}"),
        Column("S_TG t/s", 8, lambda record: f"{record.speed_tg:.2f}"),
        Column("T s", 8, lambda record: f"{record.t:.3f}"),
        Column("S t/s", 8, lambda record: f"{record.speed:.2f}"),
    ]
