"""The sampler chain: logits in, token out.

The sequence of stages is static structure of the pytree. The options of each stage are leaves: changing them compiles
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int
from minillama.errors import OptionError
from minillama.sampling.candidates import Candidates
from minillama.sampling.mersenne_twister import seed_words
from minillama.sampling.pytree import STATIC, pytree
from minillama.sampling.sampler_state import SamplerState, StepContext, new_state
from minillama.sampling.stages.draw import FinalSampler, draw
from minillama.sampling.stages.top_tokens import TopReport
from minillama.sampling.stages.truncation import TopK


@runtime_checkable
class Stage(Protocol):
    """One stage of the chain: a frozen pytree that maps candidates to candidates."""

    name: str

    def __call__(self, candidates: Candidates, step: StepContext) -> Candidates: ...


@runtime_checkable
class Switch(Protocol):
    """A stage that may be off, in a chain that has every stage."""

    @property
    def is_on(self) -> Bool[Array, ""]: ...


@pytree
@dataclass(frozen=True)
class Chain:
    """llama.cpp's sampler chain as a pytree: chains of the same structure share one compilation.

    is_shared: it has every stage, and a stage that is off is skipped when it runs. report: of the likeliest tokens.
    """

    stages: tuple[Stage, ...]
    sampler: FinalSampler
    vocab_size: int = field(metadata=STATIC)
    window: int = field(metadata=STATIC)
    is_shared: bool = field(default=False, metadata=STATIC)
    report: TopReport | None = None

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
        found = [candidates.with_sort_key() if self.is_shared else candidates]
        for stage in stages:
            found.append(self._apply(stage, found[-1], step))
        if with_sampler:
            found.append(self.sampler.truncate(found[-1], state.mu))
        return tuple(found)

    def _apply(self, stage: Stage, candidates: Candidates, step: StepContext) -> Candidates:
        """Run a stage; in a shared chain, only if it is on."""
        if not self.is_shared:
            return stage(candidates, step)
        if isinstance(stage, TopK) and stage.width is not None:  # it shortens the list
            return stage(candidates, step).with_sort_key()
        assert isinstance(stage, Switch)
        return lax.cond(stage.is_on, lambda: stage(candidates, step), lambda: candidates)


def logprob(logits: Float[Array, "V"], token: Int[Array, ""]) -> Float[Array, ""]:
    """Log-probability (natural) of a token under the model, before any stage of the chain."""
    logits = logits.astype(jnp.float32)
    return logits[token] - jax.nn.logsumexp(logits)
