"""What may follow a prompt: the model's probabilities, and what each link of the sampler chain does to them."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from minillama.engine.llm import LLM
from minillama.lab.plots import lab_plots
from minillama.lab.widgets.figure import Figure, text_table
from minillama.sampling import Sampling, StageReport, build_chain, explain

# What the links are called in a lab, where llama.cpp's printed name says less.
STAGE_NAMES = {"temp-ext": "temperature", "temp": "temperature", "typical": "typical-p"}


@lru_cache(maxsize=64)
def last_logits(llm: LLM, ids: tuple[int, ...]) -> Float[np.ndarray, "V"]:
    """The logits behind the last of the ids; remembered, because only the sampler changes when a slider moves."""
    return llm.logits(ids)[-1]


def softmax(logits: Float[np.ndarray, "V"]) -> Float[np.ndarray, "V"]:
    """Probabilities of logits, in float64."""
    weights = np.exp(logits.astype(np.float64) - np.max(logits))
    return weights / weights.sum()


def stage_reports(llm: LLM, prompt: str, sampling: Sampling) -> tuple[StageReport, ...]:
    """What each link of the chain keeps of the tokens that could follow the prompt; the penalties see the prompt."""
    ids = tuple(llm.tokenizer.encode(prompt))
    chain = build_chain(sampling, llm.config.vocab_size)
    recent = np.zeros(chain.window, np.int32)
    tail = ids[-chain.window :]
    recent[: len(tail)] = tail
    state = chain.accept_many(chain.init(0), jnp.asarray(recent), len(tail))
    reports = explain(last_logits(llm, ids), chain, state)
    _compiled_structures.add(jax.tree.structure(chain))
    return reports


_compiled_structures: set[object] = set()  # structures of chains that were compiled already


def must_compile(llm: LLM, sampling: Sampling) -> bool:
    """Whether `stages` meets this structure of chain for the first time; a panel says so before it waits."""
    return jax.tree.structure(build_chain(sampling, llm.config.vocab_size)) not in _compiled_structures


def token_text(llm: LLM, token: int) -> str:
    """A token's text, also where it is only part of a character or a control token."""
    return llm.tokenizer.piece(token, special=True).decode("utf-8", errors="replace")


def next_token(llm: LLM, prompt: str, sampling: Sampling, *, shown: int = 12) -> Figure:
    """Bars of the likeliest next tokens before and after the chain, and which link removed the others."""
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
        f"{reports[-1].kept} of {before.size:,} tokens may follow “{tail}”",
    )


def chain_table(llm: LLM, prompt: str, sampling: Sampling) -> str:
    """The chain as a table: each link, how many tokens it leaves, and the likeliest one."""
    rows = []
    for report in stage_reports(llm, prompt, sampling):
        best = f"{token_text(llm, int(report.ids[0]))!r} {report.probs[0]:.1%}"
        rows.append((STAGE_NAMES.get(report.name, report.name), f"{report.kept:,}", f"{report.removed.size:,}", best))
    return text_table(("link", "kept", "removed", "likeliest"), rows)
