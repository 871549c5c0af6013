"""The sampler chain: logits in, token out.

The sequence of stages is static structure of the pytree. The options of each stage are leaves: changing them compiles
nothing.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from minillama.errors import OptionError
from minillama.sampling.candidates import Candidates, bucket
from minillama.sampling.mersenne_twister import seed_words
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
    """One stage of the chain: a frozen pytree that maps candidates to candidates."""

    name: str

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates: ...


@pytree
@dataclass(frozen=True)
class Chain:
    """llama.cpp's sampler chain as a pytree: chains of the same structure share one compilation."""

    stages: tuple[Stage, ...]
    sampler: FinalSampler
    vocab_size: int = field(metadata=STATIC)
    window: int = field(metadata=STATIC)

    @property
    def structure(self) -> Hashable:
        """The key of the programs that run the chain: equal for chains that share them."""
        leaves, structure = jax.tree.flatten(self)
        return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)

    def init(self, seed: int) -> SamplerState:
        """The state before the first token, from a seed (0 to 2**32 - 1, see `resolve_seed`)."""
        if not 0 <= seed < 2**32:
            raise OptionError(f"seed is {seed}; expected 0 to {2**32 - 1} (resolve_seed picks one for -1)")
        return new_state(seed_words(seed), self.window, self.sampler.initial_mu())

    def accept(self, state: SamplerState, token: Int[Array, ""]) -> SamplerState:
        """Add a token that the chain did not draw to the penalty window."""
        return state.accept(token)

    def accept_many(self, state: SamplerState, ids: Int[Array, "T"], n_valid: Int[Array, ""] | int) -> SamplerState:
        """Add the first n_valid of the ids, a padded prompt, to the penalty window."""
        return state.accept_many(ids, jnp.asarray(n_valid, jnp.int32))

    def __call__(self, logits: Float[Array, "V"], state: SamplerState) -> tuple[Int[Array, ""], SamplerState]:
        """Sample a token and accept it."""
        return self.draw(self.candidates(logits, state), state)

    def draw(self, candidates: Candidates, state: SamplerState) -> tuple[Int[Array, ""], SamplerState]:
        """Draw one token from the output of all stages, and accept it."""
        position = draw(candidates, state.draws.float64())
        token = candidates.ids[position]
        draws = state.draws.skip(2 * self.sampler.numbers(candidates))
        xtc = state.xtc.skip(candidates.xtc_numbers)
        mu = self.sampler.update_mu(state.mu, candidates.probs[position])
        return token, SamplerState(draws, xtc, state.accept(token).recent, mu)

    def candidates(self, logits: Float[Array, "V"], state: SamplerState) -> Candidates:
        """The output of all stages, from which `draw` samples."""
        return self.run_all(logits, state)[-1]

    def run_all(self, logits: Float[Array, "V"], state: SamplerState) -> tuple[Candidates, ...]:
        """Candidates before the first stage and after each one, the final sampler included."""
        if logits.shape[0] != self.vocab_size:
            raise ValueError(f"{logits.shape[0]} logits for a chain built for {self.vocab_size} tokens")
        return self.run(Candidates.from_logits(logits), state, self.stages)

    def run(
        self, candidates: Candidates, state: SamplerState, stages: Sequence[Stage], *, with_sampler: bool = True
    ) -> tuple[Candidates, ...]:
        """Candidates before and after each of some consecutive stages.

        with_sampler: append those after the truncation of the final sampler.
        """
        step = StepContext(state.recent, state.xtc.float32(), state.mu)
        found = [candidates]
        for stage in stages:
            found.append(stage(found[-1], step))
        if with_sampler:
            found.append(self.sampler.truncate(found[-1], state.mu))
        return tuple(found)


def build_chain(sampling: Sampling, vocab_size: int) -> Chain:
    """Build the chain for the given options.

    Options that change the structure cause a new compilation: another order of the stages; a stage switched on or off
    (except min_p, temperature, and top_p after a top_k, which also run at their off values); another power of two above
    top_k, repeat_last_n or the number of biases; min_keep crossing 1; another mirostat. No other option recompiles.
    Raises OptionError for token ids outside the vocabulary.
    """
    stages: list[Stage] = [_logit_bias(sampling, vocab_size)] if sampling.logit_bias else []
    bounded = False
    for sampler in sampling.order:
        if _is_included(sampler, sampling, bounded):
            stages.append(_stage(sampler, sampling, vocab_size))
        bounded = bounded or (sampler is Sampler.TOP_K and sampling.enabled(sampler))
    tau, eta = jax.device_put((np.float32(sampling.mirostat_ent), np.float32(sampling.mirostat_lr)))
    samplers = Dist(), Mirostat1(tau, eta), Mirostat2(tau, eta)
    return Chain(tuple(stages), samplers[sampling.mirostat], vocab_size, penalty_window(sampling))


def penalty_window(sampling: Sampling) -> int:
    """Number of past tokens in the penalty window of a chain with these options."""
    return bucket(max(sampling.repeat_last_n, sampling.dry_penalty_last_n, 1))


def logprob(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """Log-probability (natural) of a token under the model, before any stage of the chain."""
    logits = logits.astype(jnp.float32)
    return logits[token] - jax.nn.logsumexp(logits)


def _is_included(sampler: Sampler, sampling: Sampling, bounded: bool) -> bool:
    """True if the chain gets this stage.

    Cheap stages stay in the chain at their off values, so that a slider that crosses such a value does not recompile.
    """
    cheap = sampler in (Sampler.TEMPERATURE, Sampler.MIN_P) or (sampler is Sampler.TOP_P and bounded)
    return cheap or sampling.enabled(sampler)


def _stage(sampler: Sampler, sampling: Sampling, vocab_size: int) -> Stage:
    """Build one stage with its options on the device."""

    def real(value: float) -> Float[Array, ""]:
        return jax.device_put(np.float32(value))  # unlike jnp.asarray, this compiles no program

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
