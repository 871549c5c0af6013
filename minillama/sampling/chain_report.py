"""Effect of each stage of a chain on one set of logits, as numpy values."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int
from minillama.sampling.candidates import Candidates
from minillama.sampling.chain import Chain
from minillama.sampling.sampler_state import SamplerState


@dataclass(frozen=True)
class StageReport:
    """One stage: the candidates that it keeps and those that it removes, both likeliest first."""

    name: str  # llama.cpp's name of the stage; "logits" for the input
    kept: int
    ids: Int[np.ndarray, "kept"]
    probs: Float[np.ndarray, "kept"]  # softmax over the kept candidates
    removed: Int[np.ndarray, "removed"]


def distribution(logits: Float[Array | np.ndarray, "V"], chain: Chain, state: SamplerState) -> Float[np.ndarray, "V"]:
    """Probability of each token of the vocabulary in the next draw; 0 for removed tokens."""
    last = _run_all(chain, jnp.asarray(logits), state)[-1]
    probs = np.zeros(chain.vocab_size, np.float32)
    probs[np.asarray(last.ids)] = np.asarray(last.probs)
    return probs


def explain(logits: Float[Array | np.ndarray, "V"], chain: Chain, state: SamplerState) -> tuple[StageReport, ...]:
    """One report for the logits, then one for each stage of the chain."""
    names = ("logits", *(stage.name for stage in chain.stages), chain.sampler.name)
    reports: list[StageReport] = []
    for name, found in zip(names, _run_all(chain, jnp.asarray(logits), state), strict=True):
        ids, probs = _likeliest_first(found)
        before = reports[-1].ids if reports else ids
        removed = before[~np.isin(before, ids)]
        reports.append(StageReport(name, len(ids), ids, probs, removed))
    return tuple(reports)


@jax.jit
def _run_all(chain: Chain, logits: Float[Array, "V"], state: SamplerState) -> tuple[Candidates, ...]:
    return chain.run_all(logits, state)


def _likeliest_first(found: Candidates) -> tuple[Int[np.ndarray, "kept"], Float[np.ndarray, "kept"]]:
    """Ids and probabilities of the drawable candidates; a logit of -inf counts as removed."""
    ids, logits, probs = np.asarray(found.ids), np.asarray(found.logits), np.asarray(found.probs)
    order = np.argsort(-logits, kind="stable")
    order = order[np.asarray(found.kept)[order] & (logits[order] > -np.inf)]
    return ids[order], probs[order]
