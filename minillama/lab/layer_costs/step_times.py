"""Time of a decode step by context: small models that differ in their layers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from functools import partial
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int
from minillama.engine.load import load
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.lab.benchmarks.ratio_interval import Interval, ratio_interval
from minillama.lab.experiments.quantised_storytellers import temporary_folder
from minillama.lab.lab_models import LabModel
from minillama.lab.language import message, translate
from minillama.lab.layer_costs.wide_layers import bytes_read
from minillama.lab.measuring import measuring
from minillama.lab.widgets.running_line import running
from minillama.measure.tables import padded
from minillama.model import Cache, Config, Params, empty_cache
from minillama.model.forward import forward, unembed
from minillama.model.layer_kinds import Attention
from minillama.model.states.window import first_held
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_shape import ModelShape
from minillama.random_models.model_writer import write_random_model

WINDOW = 1024
LAYERS = 2
STEPS = 3  # of a measurement
_ROOM = 64  # positions after the deepest context
FLAT = 1.1  # a ratio of times up to this is flat


@dataclass(frozen=True)
class Model:
    """Weights and sizes of a model whose layers are all of one kind."""

    params: Params
    config: Config

    def state_bytes(self, length: int) -> int:
        """Bytes of state that the step of token number `length` reads."""
        return sum(bytes_read(layer, length) for layer in self.config.layers)


@once
def equal_models() -> dict[str, Model]:
    """Random models of width 1024 with 16 heads of 64, made once per process."""
    models = {name: _loaded(file) for name, file in equal_files().items()}
    mha = models["MHA"]
    slides = [replace(layer, sliding_window=WINDOW) for layer in mha.config.layers if isinstance(layer, Attention)]
    window = Model(mha.params, replace(mha.config, layers=tuple(slides)))
    return {"MHA": mha, "GQA": models["GQA"], "window": window} | {
        name: models[name] for name in ("latent", "recurrence")
    }


def equal_files() -> dict[str, LabModel]:
    """The files of `equal_models`, by the kind of layer."""
    return {
        kind: LabModel(f"{shape.name}.gguf", partial(write_random_model, shape=shape, file_type="Q8_0"))
        for kind, shape in _shapes().items()
    }


def _shapes() -> dict[str, ModelShape]:
    mha = replace(
        shape_named("tiny"), name="equal-mha", layers=LAYERS, embedding=1024, heads=16, kv_heads=16, head_size=64,
        feed_forward=2048, context=16384,
    )  # fmt: skip
    latent = {
        "attention.key_length": 288, "attention.value_length": 256, "attention.key_length_mla": 96,
        "attention.value_length_mla": 64, "attention.q_lora_rank": 512, "attention.kv_lora_rank": 256,
        "rope.dimension_count": 32, "leading_dense_block_count": LAYERS,
    }  # fmt: skip
    recurrence = {
        "attention.recurrent_layers": [True] * LAYERS, "rope.dimension_sections": [4, 2, 2, 0],
        "ssm.group_count": 16, "ssm.time_step_rank": 16, "ssm.state_size": 64, "ssm.inner_size": 1024,
        "ssm.conv_kernel": 4,
    }  # fmt: skip
    return {
        "MHA": mha,
        "GQA": replace(mha, name="equal-gqa", kv_heads=4),
        "latent": replace(mha, name="equal-latent", architecture="deepseek2", kv_heads=1, keys=latent),
        "recurrence": replace(mha, name="equal-recurrence", architecture="qwen35", kv_heads=4, keys=recurrence),
    }


def _loaded(file: LabModel) -> Model:
    llm = load(file.path(temporary_folder()), ctx_size=512, progress=False)
    return Model(llm.params, llm.config)


def filled_cache(config: Config, length: int, capacity: int) -> Cache:
    """A cache that says it holds `length` tokens; all numbers are 0.

    The time of a step does not depend on the numbers, and reading a text would take longer than the measurement.
    """
    cache = replace(
        empty_cache(config, capacity, CacheTypes(), chunk=STEPS), length=jnp.asarray(np.array([length], np.int32))
    )
    if not config.sliding_window:
        return cache
    return cache.slide(np.array([first_held(config.sliding_window, length)], np.int32))


@partial(jax.jit, static_argnames="config", donate_argnames="cache")
def _step(params: Params, config: Config, ids: Int[Array, "1 1"], cache: Cache) -> tuple[Float[Array, "V"], Cache]:
    hidden, cache = forward(params, config, ids, cache)
    return unembed(params, config, hidden[0, -1]), cache


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step in each round, by kind and context."""

    rounds: Mapping[str, Mapping[int, Sequence[float]]]

    @property
    def contexts(self) -> list[int]:
        """The measured contexts, the shortest first."""
        return sorted(next(iter(self.rounds.values())))

    def seconds(self, kind: str, context: int) -> float:
        """Median seconds of a step."""
        return median(self.rounds[kind][context])

    def speeds(self, kind: str) -> list[float]:
        """Tokens a second at each context."""
        return [1 / self.seconds(kind, context) for context in self.contexts]

    def ratio(self, one: tuple[str, int], other: tuple[str, int]) -> Interval:
        """Time of one (kind, context) over that of another, from the same rounds."""
        pairs = zip(self.rounds[one[0]][one[1]], self.rounds[other[0]][other[1]], strict=True)
        return ratio_interval([first / second for first, second in pairs])

    def growth(self, kind: str) -> Interval:
        """Time at the longest context over that at the shortest."""
        return self.ratio((kind, self.contexts[-1]), (kind, self.contexts[0]))


class _Stepper:
    """Steps of one model at several contexts.

    A cache of all positions serves every context; a window has one for each.
    """

    def __init__(self, model: Model, contexts: Sequence[int]) -> None:
        self._model, self._slides = model, model.config.sliding_window > 0
        filled = contexts if self._slides else [0]
        self._caches = {length: filled_cache(model.config, length, max(contexts) + _ROOM) for length in filled}

    def seconds(self, context: int) -> float:
        """Seconds of a step after `context` tokens, the mean of a few.

        Each of them writes and reads the same positions.
        """
        place = context if self._slides else 0
        ids, length = np.array([[5]], np.int32), np.array([context], np.int32)
        cache = jax.block_until_ready(self._caches[place])
        started = time.perf_counter()
        for _ in range(STEPS):
            cache = replace(cache, length=jnp.asarray(length))
            logits, cache = _step(self._model.params, self._model.config, jnp.asarray(ids), cache)
        jax.block_until_ready(logits)
        self._caches[place] = cache
        return (time.perf_counter() - started) / STEPS


@measuring("steps by context of a lab", tells_load=True)
def step_times(
    models: Mapping[str, Model], contexts: Sequence[int] = (1024, 2048, 4096, 8192), *, rounds: int = 11
) -> StepTimes:
    """Time steps of all models at all contexts; each round measures all of them."""
    times: dict[str, dict[int, list[float]]] = {name: {context: [] for context in contexts} for name in models}
    steppers = {name: _Stepper(model, contexts) for name, model in models.items()}
    with running(translate("rounds"), steps=rounds + 1) as step:
        for turn in range(rounds + 1):
            for name, stepper in steppers.items():
                for context in contexts:
                    seconds = stepper.seconds(context)
                    if turn:  # the first round compiles
                        times[name][context].append(seconds)
            step()
    return StepTimes(times)


def growth_sentence(times: StepTimes, kind: str) -> str:
    """Verdict on the growth of a step's time; "cannot tell" within the noise."""
    found, short, long = times.growth(kind), times.contexts[0], times.contexts[-1]
    if found.low > FLAT:
        verdict = translate("grows")
    elif found.high <= FLAT and found.low >= 1 / FLAT:
        verdict = translate("flat")
    else:
        verdict = translate("cannot tell")
    return translate(
        "{kind} {long} over {short} tokens: {found}, {verdict}",
        kind=padded(translate(kind), 10), long=long, short=short, found=found, verdict=verdict,
    )  # fmt: skip


def state_rate(times: StepTimes, kind: str, model: Model) -> float | None:
    """Bytes a second of the state that the longest context adds; None without growth."""
    if times.growth(kind).low <= FLAT:
        return None
    short, long = times.contexts[0], times.contexts[-1]
    added = model.state_bytes(long) - model.state_bytes(short)
    return added / (times.seconds(kind, long) - times.seconds(kind, short)) if added else None


def rates_sentence(times: StepTimes, models: Mapping[str, Model], kind: str, other: str) -> str:
    """Verdict on the time of a byte of state of one kind over another's."""
    of_kind, of_other = (_byte_seconds(times, name, models[name]) for name in (kind, other))
    if min(*of_kind, *of_other) <= 0:
        return translate(
            "a byte of {kind} against one of {other}: cannot tell, the noise is larger than the growth",
            kind=translate(kind), other=translate(other),
        )  # fmt: skip
    found = ratio_interval([one / two for one, two in zip(of_kind, of_other, strict=True)])
    words = {1: message("longer: memory is not its limit"), 0: message("cannot tell"), -1: message("less time")}
    return translate(
        "a byte of {kind} takes {found} the time of one of {other}, {words}",
        kind=translate(kind), found=found, other=translate(other), words=translate(words[found.side]),
    )  # fmt: skip


def _byte_seconds(times: StepTimes, kind: str, model: Model) -> list[float]:
    """Seconds that a byte of state adds, in each round."""
    short, long = times.contexts[0], times.contexts[-1]
    added = model.state_bytes(long) - model.state_bytes(short)
    pairs = zip(times.rounds[kind][long], times.rounds[kind][short], strict=True)
    return [(after - before) / added if added else 0.0 for after, before in pairs]
