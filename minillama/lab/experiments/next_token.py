"""Next-token probabilities, and the effect of each sampler stage on them."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from minillama.array_types import Float
from minillama.engine.llm import LLM
from minillama.lab.language import translate
from minillama.lab.plots import lab_plots
from minillama.lab.widgets.figure import Figure, text_table
from minillama.sampling import Sampling, StageReport, build_chain, explain

# Clearer names for some of llama.cpp's printed stage names.
STAGE_NAMES = {"temp-ext": "temperature", "temp": "temperature", "typical": "typical-p"}


@lru_cache(maxsize=64)
def last_logits(llm: LLM, ids: tuple[int, ...]) -> Float[np.ndarray, "V"]:
    """Logits of the token after `ids`; cached, because a slider changes only the sampler."""
    return llm.logits(ids)[-1]


def softmax(logits: Float[np.ndarray, "V"]) -> Float[np.ndarray, "V"]:
    """Probabilities of logits, in float64."""
    weights = np.exp(logits.astype(np.float64) - np.max(logits))
    return weights / weights.sum()


def stage_reports(llm: LLM, prompt: str, sampling: Sampling) -> tuple[StageReport, ...]:
    """Tokens that each sampler stage keeps for the position after the prompt.

    The penalties include the prompt's tokens."""
    ids = tuple(llm.tokenizer.encode(prompt))
    chain = build_chain(sampling, llm.config.vocab_size)
    recent = np.zeros(chain.window, np.int32)
    tail = ids[-chain.window :]
    recent[: len(tail)] = tail
    state = chain.accept_many(chain.init(0), jnp.asarray(recent), len(tail))
    reports = explain(last_logits(llm, ids), chain, state)
    _compiled_structures.add(jax.tree.structure(chain))
    return reports


_compiled_structures: set[object] = set()  # structures of compiled chains


def must_compile(llm: LLM, sampling: Sampling) -> bool:
    """True if `stage_reports` must compile this structure of chain first."""
    return jax.tree.structure(build_chain(sampling, llm.config.vocab_size)) not in _compiled_structures


def token_text(llm: LLM, token: int) -> str:
    """A token's text; also for parts of characters and control tokens."""
    return llm.tokenizer.piece(token, special=True).decode("utf-8", errors="replace")


def next_token(llm: LLM, prompt: str, sampling: Sampling, *, shown: int = 12) -> Figure:
    """Bars of the likeliest next tokens before and after the chain.

    Removed tokens are labelled with the stage that removed them."""
    reports = stage_reports(llm, prompt, sampling)
    before = softmax(last_logits(llm, tuple(llm.tokenizer.encode(prompt))))
    after = np.zeros_like(before)
    after[reports[-1].ids] = reports[-1].probs
    removed = {int(token): STAGE_NAMES.get(report.name, report.name) for report in reports for token in report.removed}
    tokens = [int(token) for token in np.argsort(-np.maximum(before, after), kind="stable")[:shown]]
    tail = prompt if len(prompt) <= 48 else "…" + prompt[-47:]
    return lab_plots.probabilities(
        [token_text(llm, token) for token in tokens],
        [float(before[token]) for token in tokens],
        [float(after[token]) for token in tokens],
        [removed.get(token, "") for token in tokens],
        translate("{kept} of {size:,} tokens may follow “{tail}”", kept=reports[-1].kept, size=before.size, tail=tail),
    )


def chain_table(llm: LLM, prompt: str, sampling: Sampling) -> str:
    """The chain as a text table: stage, kept and removed tokens, the likeliest one."""
    rows = []
    for report in stage_reports(llm, prompt, sampling):
        best = f"{token_text(llm, int(report.ids[0]))!r} {report.probs[0]:.1%}"
        rows.append((STAGE_NAMES.get(report.name, report.name), f"{report.kept:,}", f"{report.removed.size:,}", best))
    return text_table((translate("stage"), translate("kept"), translate("removed"), translate("likeliest")), rows)
