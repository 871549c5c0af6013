"""Speeds of models on a device: prompts, tokens, depth, several texts, kernels, half a model."""

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax

from minillama.engine.llm import LLM
from minillama.engine.load import load
from minillama.engine.loading.memory_budget import available_bytes, round_up, shown_bytes
from minillama.errors import ResourceError
from minillama.gguf.quantisation_mixes import Mix
from minillama.measure.device.kernel_times import KernelTime, traced_kernels
from minillama.measure.device.report_rows import BY_FORMULA, Sizes, Value
from minillama.measure.limits.bandwidth import device_bandwidth
from minillama.measure.limits.work_per_token import trial_work
from minillama.measure.sample_statistics import mean
from minillama.measure.serving.batched_bench import BatchedBench, BatchedTrial
from minillama.measure.speed.llama_bench import measure_trial
from minillama.measure.trial import Trial
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import tensor_specs, write_random_model

TRACED = 8  # tokens under the profiler
SHOWN = 12  # kernels of a profile


class ModelBench:
    """Models in a folder, made once, and the one that is loaded."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self._name: tuple[str, str] | None = None
        self._llm: LLM | None = None
        self._bandwidth: float | None = None

    def path(self, shape: str, kind: str) -> Path:
        """The file of a shape and type; written if it is not there."""
        path = self.folder / f"{shape}-{kind}.gguf"
        return path if path.is_file() else write_random_model(path, shape, kind)

    def loaded(self, shape: str, kind: str) -> LLM:
        """The model on the device; another one goes before it is loaded.

        Raises ResourceError, before a file is written, where its weights do not fit.
        """
        if self._name != (shape, kind):
            self.unload()
            _check_fits(shape, kind)
            context = round_up(self.sizes.depth + self.sizes.prompt)
            self._llm = load(self.path(shape, kind), ctx_size=context, progress=False)
            self._name = shape, kind
        assert self._llm is not None
        return self._llm

    def unload(self) -> None:
        """Give back the memory of the loaded model."""
        self._llm = self._name = None
        gc.collect()

    def bandwidth(self) -> float:
        """Bytes per second that the device reads, measured once."""
        if self._bandwidth is None:
            self._bandwidth = device_bandwidth(size=self.sizes.read_bytes, passes=self.sizes.passes)
        return self._bandwidth


def _check_fits(shape: str, kind: str) -> None:
    size = sum(tensor.nbytes for tensor in tensor_specs(shape_named(shape), Mix.named(kind)))
    free = available_bytes(jax.devices()[0])
    if size > free:
        raise ResourceError(f"{shape} {kind} has {shown_bytes(size)} of weights, but {shown_bytes(free)} are free")


def prompt_and_tokens(bench: ModelBench, shape: str, kind: str) -> Iterator[Value]:
    """Tokens per second of a prompt and of decoding, as llama-bench measures them."""
    llm, sizes = bench.loaded(shape, kind), bench.sizes
    yield Value("load", llm.load_seconds, "s")
    yield from _speed(bench, llm, Trial(0, sizes.answer))
    yield from _speed(bench, llm, Trial(sizes.prompt, 0))


def at_depth(bench: ModelBench, shape: str, kind: str) -> Iterator[Value]:
    """Decoding after many tokens of context."""
    sizes = bench.sizes
    yield from _speed(bench, bench.loaded(shape, kind), Trial(0, max(1, sizes.answer // 4), sizes.depth))


def several_texts(bench: ModelBench, shape: str, kind: str) -> Iterator[Value]:
    """Decoding of several texts at once."""
    trial = BatchedTrial(16, max(2, bench.sizes.answer // 2), bench.sizes.slots)
    record = BatchedBench(bench.loaded(shape, kind), [trial]).measure(trial)
    yield Value(f"tg{trial.tg}, {trial.pl} texts", record.speed_tg, "t/s")


def profile(bench: ModelBench, shape: str, kind: str) -> Iterator[Value]:
    """Microseconds and launches by kernel, of a token and of a prompt."""
    llm = bench.loaded(shape, kind)
    for name, trial, calls in (
        ("token", Trial(0, TRACED), TRACED),
        (f"prompt of {bench.sizes.prompt}", Trial(bench.sizes.prompt, 0), 1),
    ):
        measure_trial(llm, trial, 1, n_batch=trial.positions)  # compiles
        found = traced_kernels(partial(measure_trial, llm, trial, 1, n_batch=trial.positions, warmup=False))
        launches, seconds = (sum(getattr(kernel, of) for kernel in found) for of in ("launches", "seconds"))
        for kernel in (KernelTime("all kernels", launches, seconds), *found[:SHOWN]):
            microseconds = 1e6 * kernel.seconds / calls
            yield Value(f"{name}: {kernel.name}", microseconds, "us", launches=kernel.launches / calls)


def half_offload(bench: ModelBench, shape: str, kind: str) -> Iterator[Value]:
    """Decoding with the last half of the layers on the device."""
    if jax.devices()[0].platform == "cpu":
        raise ResourceError("this needs an accelerator: the processor has all layers")
    bench.unload()
    layers = shape_named(shape).layers
    trial = Trial(0, max(1, bench.sizes.answer // 8))
    llm = load(bench.path(shape, kind), n_gpu_layers=layers // 2, ctx_size=round_up(trial.positions), progress=False)
    samples, _ = measure_trial(llm, trial, 1, n_batch=trial.positions)
    yield Value(f"{trial.name}, {layers // 2} of {layers} layers on the device", 1e9 * trial.n_gen / samples[0], "t/s")


def _speed(bench: ModelBench, llm: LLM, trial: Trial) -> Iterator[Value]:
    """Tokens per second of a test, its compile time, and its share of the bandwidth."""
    samples, compiling = measure_trial(llm, trial, bench.sizes.repetitions, n_batch=llm.batches.batch_size)
    speed = mean([1e9 * (trial.n_prompt + trial.n_gen) / sample for sample in samples])
    yield Value(trial.name, speed, "t/s")
    yield Value(f"{trial.name}: compiling", compiling, "s")
    if trial.n_gen:
        work = trial_work(llm.file, llm.config, llm.cache_types, trial)
        yield Value(f"{trial.name}: share of the bandwidth", speed * work.bytes / bench.bandwidth(), "", BY_FORMULA)
