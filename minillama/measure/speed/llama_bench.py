"""llama-bench's tests on minillama: tokens per second of prefill and decode, without sampling.

The method is llama-bench's. The context of a test has the size of the test. A prompt is random token ids, with BOS
first if the model needs it; it is passed in batches of n_batch and computed in chunks of n_ubatch, with logits of the
last token. Generation decodes one token at a time, waits for its logits, and continues with a random id. The tokens of
the depth are read before the clock starts, and later repetitions truncate the cache to them. Programs are compiled in
the warm-up; compile time within a repetition is subtracted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import jax
import numpy as np

from minillama import __version__, env
from minillama.engine.compile.compile_timer import Stopwatch, compile_seconds
from minillama.engine.llm import LLM
from minillama.engine.load import load
from minillama.engine.loading.device_sharing import DeviceSharing
from minillama.engine.loading.memory_budget import round_up
from minillama.engine.session import Session
from minillama.gguf.display_names import model_type
from minillama.kernels import target_platform
from minillama.measure.host.other_load import OtherLoad
from minillama.measure.limits.work_per_token import trial_work
from minillama.measure.sample_statistics import deviation, mean
from minillama.measure.speed.bench_plan import ALL_LAYERS, Setup
from minillama.measure.speed.bench_record import Record
from minillama.measure.trial import Trial

SINGLE_DEVICE = DeviceSharing()

Advance = Callable[[str], object]  # called with the test's name after its warm-up and after each repetition


def measure(
    setup: Setup,
    trials: Sequence[Trial],
    repetitions: int,
    *,
    warmup: bool = True,
    bandwidth: float | None = None,
    peak_flops: float | None = None,
    delay: float = 0.0,
    sharing: DeviceSharing = SINGLE_DEVICE,
    advance: Advance = lambda name: None,
) -> Iterator[Record]:
    """Load the model and measure one test after the other.

    The setup's threads must be set before: JAX fixes them at its start (`env.prepare`).
    bandwidth, peak_flops: limits of the machine in bytes and operations per second, for the shares in the records.
    delay: seconds to wait before each test. sharing: devices or workers that share the work; the setup's threads are
    those of each worker.
    Raises MinillamaError if the model cannot run with this setup.
    """
    llm = load(
        setup.model,
        ctx_size=max(trial.positions for trial in trials),
        n_gpu_layers=None if setup.n_gpu_layers == ALL_LAYERS else setup.n_gpu_layers,
        batch_size=setup.n_batch,
        ubatch_size=setup.n_ubatch,
        cache_type_k=setup.type_k,
        cache_type_v=setup.type_v,
        use_mmap=setup.load_mode not in ("none", "mlock"),
        use_mlock="mlock" in setup.load_mode,
        split_mode=sharing.split_mode,
        tensor_split=sharing.tensor_split,
        main_gpu=sharing.main_gpu,
        tensor_parallel=sharing.tensor_parallel,
        workers=sharing.workers,
        secret=sharing.secret,
        threads=setup.n_threads,
        progress=False,
    )
    for trial in trials:
        time.sleep(delay)
        started, others = datetime.now(UTC), OtherLoad()
        samples, compiling = measure_trial(
            llm, trial, repetitions, n_batch=setup.n_batch, warmup=warmup, advance=advance
        )
        record = _record(llm, setup, sharing, trial, started, samples, compiling)
        other_load = None if sharing.workers else round(others.share(), 4)  # workers on this machine would count
        yield _with_machine_limits(replace(record, other_load=other_load), llm, bandwidth, peak_flops)
    llm.close()


def measure_trial(
    llm: LLM,
    trial: Trial,
    repetitions: int,
    *,
    n_batch: int,
    warmup: bool = True,
    advance: Advance = lambda name: None,
) -> tuple[tuple[int, ...], float]:
    """Nanoseconds of each repetition, and the seconds of compile time left out of them."""
    compiled = compile_seconds()
    session = replace(llm, ctx_size=round_up(trial.positions)).session()
    session.reserve(trial.positions)
    tokens = _RandomTokens(llm, session, n_batch)
    tokens.prefill(trial.n_depth)
    if warmup:
        tokens.prefill(trial.n_prompt)
        tokens.decode(min(1, trial.n_gen))
        advance(trial.name)
    samples = []
    for _ in range(repetitions):
        llm.check_file()
        session.truncate(trial.n_depth)
        stopwatch = Stopwatch()
        tokens.prefill(trial.n_prompt)
        tokens.decode(trial.n_gen)
        samples.append(max(1, round(1e9 * stopwatch.seconds())))
        advance(trial.name)
    return tuple(samples), compile_seconds() - compiled


class _RandomTokens:
    """Prefills and decodes random tokens."""

    def __init__(self, llm: LLM, session: Session, n_batch: int) -> None:
        self._session, self._batch = session, n_batch
        self._vocabulary = llm.tokenizer.size
        self._first = llm.tokenizer.bos if llm.tokenizer.add_bos else None
        self._random = np.random.default_rng(0)

    def prefill(self, count: int) -> None:
        """Read a prompt in batches, and wait for the logits of its last token."""
        ids = self._random.integers(self._vocabulary, size=count).tolist()
        if ids and self._first is not None:
            ids[0] = self._first
        logits = None
        for start in range(0, count, self._batch):
            for chunk_logits in self._session.prefill(ids[start : start + self._batch]):
                logits = chunk_logits
        jax.block_until_ready(logits)

    def decode(self, count: int) -> None:
        """Decode tokens one by one, and wait for the logits of each."""
        token = self._random_token() if self._first is None else self._first
        for _ in range(count):
            jax.block_until_ready(self._session.decode(token))
            token = self._random_token()

    def _random_token(self) -> int:
        return int(self._random.integers(self._vocabulary))


def _record(
    llm: LLM,
    setup: Setup,
    sharing: DeviceSharing,
    trial: Trial,
    started: datetime,
    samples: tuple[int, ...],
    compiling: float,
) -> Record:
    speeds = tuple((trial.n_prompt + trial.n_gen) * 1e9 / nanoseconds for nanoseconds in samples)
    device = llm.backend.devices[-1] if llm.backend.devices else None
    work = trial_work(llm.file, llm.config, llm.cache_types, trial, min(setup.n_ubatch, setup.n_batch))
    return Record(
        build_commit=f"minillama {__version__}, jax {jax.__version__}",
        cpu_info=env.describe().cpu,
        gpu_info="" if device is None or device.platform == "cpu" else device.device_kind,
        backends="workers" if device is None else f"JAX {device.platform.upper()}",
        model_filename=str(setup.model),
        model_type=model_type(llm.file),
        model_size=llm.file.nbytes,
        model_n_params=llm.file.parameters,
        n_batch=setup.n_batch,
        n_ubatch=setup.n_ubatch,
        n_threads=setup.n_threads,
        type_k=setup.type_k,
        type_v=setup.type_v,
        load_mode=setup.load_mode,
        n_gpu_layers=setup.n_gpu_layers,
        split_mode=sharing.split_mode,
        main_gpu=sharing.main_gpu or None,
        tensor_split="/".join(map(str, sharing.tensor_split)) or None,
        devices=sharing.workers or ("auto" if sharing.tensor_parallel == 1 else f"first {sharing.tensor_parallel}"),
        n_prompt=trial.n_prompt,
        n_gen=trial.n_gen,
        n_depth=trial.n_depth,
        test_time=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        avg_ns=round(mean(samples)),
        stddev_ns=round(deviation(samples)),
        avg_ts=round(mean(speeds), 6),
        stddev_ts=round(deviation(speeds), 6),
        samples_ns=samples,
        samples_ts=tuple(round(speed, 6) for speed in speeds),
        load_seconds=round(llm.load_seconds, 3),
        compile_seconds=round(compiling, 3),
        bytes_per_token=work.bytes,
        flops_per_token=work.operations,
        gflops=round(1e-9 * work.operations * mean(speeds), 3),
    )


def _with_machine_limits(record: Record, llm: LLM, bandwidth: float | None, peak_flops: float | None) -> Record:
    """Add the shares of the machine's limits to a record."""
    if not llm.backend.devices or llm.backend.devices[-1].platform != target_platform():
        return record  # the limits were measured on another device
    assert record.bytes_per_token is not None and record.flops_per_token is not None
    reads, computes = record.bytes_per_token * record.avg_ts, record.flops_per_token * record.avg_ts
    return replace(
        record,
        memory_bandwidth=bandwidth,
        bandwidth_share=None if bandwidth is None else round(reads / bandwidth, 4),
        peak_flops=peak_flops,
        flops_share=None if peak_flops is None else round(computes / peak_flops, 4),
    )
