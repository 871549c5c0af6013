"""The chain: logits in, token out. Which links there are is structure; their values are leaves that may move freely."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from minillama.errors import OptionError
from minillama.sampling.candidates import Candidates, bucket
from minillama.sampling.pytree import STATIC, pytree
from minillama.sampling.sampler_order import Sampler
from minillama.sampling.sampler_state import SamplerState, StepContext, new_state
from minillama.sampling.sampling_params import Sampling
from minillama.sampling.stages.draw import Dist, FinalSampler, Mirostat1, Mirostat2, draw
from minillama.sampling.stages.dry import Dry
from minillama.sampling.stages.penalties import LogitBias, Penalties
from minillama.sampling.stages.temperature import DynamicTemperature, Temperature
from minillama.sampling.stages.truncation import MinP, TopK, TopNSigma, TopP, Typical, Xtc


@runtime_checkable
class Stage(Protocol):
    """One link: a frozen pytree that maps candidates to candidates."""

    name: str

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates: ...


@pytree
@dataclass(frozen=True)
class Chain:
    """llama.cpp's sampler chain; an argument of compiled code, so that chains of one structure share a compilation."""

    stages: tuple[Stage, ...]
    sampler: FinalSampler
    vocab_size: int = field(metadata=STATIC)
    window: int = field(metadata=STATIC)

    def init(self, seed: int) -> SamplerState:
        """The state before the first token, from a seed of 0 to 2**32 - 1 (`resolve_seed` makes one)."""
        if not 0 <= seed < 2**32:
            raise OptionError(f"seed is {seed}; a chain needs 0 to {2**32 - 1} (resolve_seed finds one for -1)")
        return new_state(seed, self.window, self.sampler.initial_mu())

    def accept(self, state: SamplerState, token: Int[Array, ""]) -> SamplerState:
        """Let the penalties see one token that the chain did not draw itself."""
        return state.accept(token)

    def accept_many(self, state: SamplerState, ids: Int[Array, "T"], n_valid: Int[Array, ""] | int) -> SamplerState:
        """Let the penalties see the first n_valid of the ids, the first one first: a padded prompt."""
        return state.accept_many(ids, jnp.asarray(n_valid, jnp.int32))

    def __call__(self, logits: Float[Array, "V"], state: SamplerState) -> tuple[Int[Array, ""], SamplerState]:
        """Draw a token and accept it."""
        return self.draw(self.candidates(logits, state), state)

    def draw(self, candidates: Candidates, state: SamplerState) -> tuple[Int[Array, ""], SamplerState]:
        """Draw one of what all links have left, and accept it."""
        key, for_draw, _ = _keys(state)
        position = draw(candidates.probs, jax.random.uniform(for_draw))
        token = candidates.ids[position]
        mu = self.sampler.update_mu(state.mu, candidates.probs[position])
        return token, SamplerState(key, state.accept(token).recent, mu)

    def candidates(self, logits: Float[Array, "V"], state: SamplerState) -> Candidates:
        """What is left after all links, from which the next call draws."""
        return self.run_all(logits, state)[-1]

    def run_all(self, logits: Float[Array, "V"], state: SamplerState) -> tuple[Candidates, ...]:
        """The candidates before the first link, and after each one; the last link's is what it draws from."""
        if logits.shape[0] != self.vocab_size:
            raise ValueError(f"{logits.shape[0]} logits for a chain built for {self.vocab_size} tokens")
        return self.run(Candidates.from_logits(logits), state, self.stages)

    def run(
        self, candidates: Candidates, state: SamplerState, stages: Sequence[Stage], *, with_sampler: bool = True
    ) -> tuple[Candidates, ...]:
        """The candidates before, and after each of some consecutive links, and of the draw's own at the end."""
        step = StepContext(state.recent, jax.random.uniform(_keys(state)[2]), state.mu)
        found = [candidates]
        for stage in stages:
            found.append(stage(found[-1], step))
        if with_sampler:
            found.append(self.sampler.truncate(found[-1], state.mu))
        return tuple(found)


def build_chain(sampling: Sampling, vocab_size: int) -> Chain:
    """Compose the links that the options ask for.

    A new structure, and so a new compilation, comes from: another order, a link switched on or off (but not top_p
    behind a top_k, min_p and temperature: they work at their off values too), another power of two above
    top_k, repeat_last_n or the number of biases, min_keep crossing 1, another mirostat. Nothing else recompiles.
    Raises OptionError for token ids beyond the vocabulary.
    """
    stages: list[Stage] = [_logit_bias(sampling, vocab_size)] if sampling.logit_bias else []
    bounded = False
    for sampler in sampling.order:
        if _is_included(sampler, sampling, bounded):
            stages.append(_stage(sampler, sampling, vocab_size))
        bounded = bounded or (sampler is Sampler.TOP_K and sampling.enabled(sampler))
    tau, eta = jax.device_put((np.float32(sampling.mirostat_ent), np.float32(sampling.mirostat_lr)))
    last = Dist(), Mirostat1(tau, eta), Mirostat2(tau, eta)
    return Chain(tuple(stages), last[sampling.mirostat], vocab_size, penalty_window(sampling))


def penalty_window(sampling: Sampling) -> int:
    """How many tokens a chain of these options looks back on."""
    return bucket(max(sampling.repeat_last_n, sampling.dry_penalty_last_n, 1))


def logprob(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """Natural logarithm of the probability that the model itself gives a token: before any link of the chain."""
    logits = logits.astype(jnp.float32)
    return logits[token] - jax.nn.logsumexp(logits)


def _keys(state: SamplerState) -> tuple[Array, Array, Array]:
    """Next step's key, the key of the draw, the key of xtc: a link switched on or off leaves the draws as they are."""
    following, for_draw, for_xtc = jax.random.split(state.key, 3)
    return following, for_draw, for_xtc


def _is_included(sampler: Sampler, sampling: Sampling, bounded: bool) -> bool:
    """Keep cheap links at their off values, so that a slider crossing them does not recompile."""
    cheap = sampler in (Sampler.TEMPERATURE, Sampler.MIN_P) or (sampler is Sampler.TOP_P and bounded)
    return cheap or sampling.enabled(sampler)


def _stage(sampler: Sampler, sampling: Sampling, vocab_size: int) -> Stage:
    """Build one link with its values on the device."""

    def real(value: float) -> Float[Array, ""]:
        return jax.device_put(np.float32(value))  # in place of jnp.asarray, which compiles a program

    def whole(value: int) -> Int[Array, ""]:
        return jax.device_put(np.int32(value))

    s = sampling
    match sampler:
        case Sampler.PENALTIES:
            return Penalties(
                whole(s.repeat_last_n), real(s.repeat_penalty), real(s.frequency_penalty), real(s.presence_penalty)
            )
        case Sampler.DRY:
            return Dry(
                real(s.dry_multiplier), real(s.dry_base), whole(s.dry_allowed_length), whole(s.dry_penalty_last_n),
                _breakers(s, vocab_size),
            )  # fmt: skip
        case Sampler.TOP_N_SIGMA:
            return TopNSigma(real(s.top_nsigma))
        case Sampler.TOP_K:
            return TopK(whole(s.top_k), min(bucket(s.top_k), vocab_size))
        case Sampler.TYP_P:
            return Typical(real(s.typical), whole(s.min_keep))
        case Sampler.TOP_P:
            return TopP(real(s.top_p), whole(s.min_keep))
        case Sampler.MIN_P:
            return MinP(real(s.min_p), whole(s.min_keep), s.min_keep > 1)
        case Sampler.XTC:
            return Xtc(real(s.xtc_probability), real(s.xtc_threshold), whole(s.min_keep))
        case Sampler.TEMPERATURE:
            if s.dynatemp_range > 0 and not s.mirostat:
                return DynamicTemperature(real(s.temp), real(s.dynatemp_range), real(s.dynatemp_exp))
            return Temperature(real(s.temp))


def _logit_bias(sampling: Sampling, vocab_size: int) -> LogitBias:
    ids = [token for token, _ in sampling.logit_bias]
    if max(ids) >= vocab_size:
        raise OptionError(f"logit_bias names token {max(ids)}; the vocabulary ends at {vocab_size - 1}")
    width = bucket(len(ids), minimum=8)
    tokens = np.full(width, vocab_size, np.int32)
    biases = np.zeros(width, np.float32)
    tokens[: len(ids)] = ids
    biases[: len(ids)] = [bias for _, bias in sampling.logit_bias]
    return LogitBias(*jax.device_put((tokens, biases)))


def _breakers(sampling: Sampling, vocab_size: int) -> Array:
    ids = sampling.dry_sequence_breakers
    if ids and max(ids) >= vocab_size:
        raise OptionError(f"dry_sequence_breakers names token {max(ids)}; the vocabulary ends at {vocab_size - 1}")
    table = np.zeros(vocab_size, bool)
    table[list(ids)] = True
    return jax.device_put(table)
