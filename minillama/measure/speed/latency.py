"""How long a person waits: for the first token, cold and warm, and from each token to the next.

Cold is a fresh process: it starts Python, imports JAX, opens the model, compiles or takes compiled programs from the
user's cache folder, reads the prompt, and chooses a token. Warm is a loaded model whose programs have run before. The
prompts are random ids, BOS first where the model asks for it, and differ from run to run; tokens are sampled as
`LLM.generate` does without options, and none ends the text.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minillama import env
from minillama.engine.llm import LLM, load
from minillama.errors import OptionError
from minillama.measure.host.child_process import call_in_child
from minillama.tokenizer import Tokenizer

PERCENTILES = (50, 90, 95, 99)

Advance = Callable[[], object]  # called after each run


@dataclass(frozen=True)
class ColdStart:
    """From the start of a process to its first token, in seconds."""

    prompt_tokens: int
    start: float  # until the model begins to load: Python and imports
    load: float
    compile: float  # or taking compiled programs from the cache folder
    prompt: float  # reading it
    first_step: float  # from its logits to a token
    total: float  # measured from outside, so a little more than the sum

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True)
class Latency:
    """One length of prompt on a warm model; seconds, one value a repeat, and of `between` all of all repeats."""

    prompt_tokens: int
    generated_tokens: int
    first_token: tuple[float, ...]  # from the call to the first token: prompt + first_step
    prompt: tuple[float, ...]
    first_step: tuple[float, ...]
    between: tuple[float, ...]  # from a token to the next
    total: tuple[float, ...]  # from the call to the last token

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, with the figures that matter before the single ones."""
        figures = {f"{name}_p{p}": value for name in ("first_token", "between", "total")
                   for p, value in zip(PERCENTILES, percentiles(getattr(self, name)), strict=True)}  # fmt: skip
        return {
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            **figures,
            **asdict(self),
        }


def percentiles(values: Sequence[float], which: Sequence[int] = PERCENTILES) -> tuple[float, ...]:
    """The values that so many percent do not exceed, interpolated between neighbours; zeros for no values."""
    if not values:
        return tuple(0.0 for _ in which)
    return tuple(float(value) for value in np.percentile(values, which))


def measure_latency(
    llm: LLM, prompt_tokens: int, *, n: int = 64, repeats: int = 5, advance: Advance = lambda: None
) -> Latency:
    """Wait for a loaded model, several times, after a run that is not counted.

    n: tokens to generate, the first included. Raises OptionError where prompt and answer do not fit in the context.
    """
    if min(prompt_tokens, n, repeats) < 1:
        raise OptionError(
            f"{prompt_tokens} tokens of prompt, {n} generated, {repeats} repeats: each should be 1 or more"
        )
    if prompt_tokens + n > llm.ctx_size:
        raise OptionError(
            f"{prompt_tokens} tokens of prompt and {n} generated do not fit in a context of {llm.ctx_size}; "
            "raise ctx_size"
        )
    prompts = random_prompts(llm.tokenizer, prompt_tokens)
    llm.generate(next(prompts), n=n, seed=0, ignore_eos=True)
    advance()
    found = []
    for repeat in range(repeats):
        found.append(llm.generate(next(prompts), n=n, seed=repeat, ignore_eos=True).timings)
        advance()
    return Latency(
        prompt_tokens=prompt_tokens,
        generated_tokens=n,
        first_token=tuple(each.first_token for each in found),
        prompt=tuple(each.prompt for each in found),
        first_step=tuple(each.first_token - each.prompt for each in found),
        between=tuple(seconds for each in found for seconds in each.token_seconds),
        total=tuple(each.first_token + sum(each.token_seconds) for each in found),
    )


def measure_cold(
    model: Path | str,
    prompt_tokens: int = 32,
    *,
    ctx_size: int = 0,
    threads: int | None = None,
    platform: str | None = None,
) -> ColdStart:
    """Start a process that loads a file and writes one token.

    threads, platform: as for `env.prepare`. Raises ResourceError, with its last words, where it fails.
    """
    started = time.time()
    values = call_in_child(run_cold_start, str(model), prompt_tokens, ctx_size, threads, platform)
    began, ended = values["began"], values["ended"]  # type: ignore[index]
    parts = {name: values[name] for name in ("load", "compile", "prompt", "first_step")}  # type: ignore[index]
    return ColdStart(prompt_tokens=prompt_tokens, start=began - started, total=ended - started, **parts)


def run_cold_start(
    model: str, prompt_tokens: int, ctx_size: int, threads: int | None, platform: str | None
) -> dict[str, float]:
    """What `measure_cold` starts in a process of its own; plain values only. Clock times are the system's."""
    began = time.time()
    env.prepare(threads=threads, platform=platform)
    llm = load(model, ctx_size=ctx_size, progress=False)
    done = llm.generate(next(random_prompts(llm.tokenizer, prompt_tokens)), n=1, seed=0, ignore_eos=True)
    ended = time.time()
    timings = done.timings
    return {
        "began": began,
        "ended": ended,
        "load": timings.load,
        "compile": timings.compile,
        "prompt": timings.prompt,
        "first_step": timings.first_token - timings.prompt,
    }


def random_prompts(tokenizer: Tokenizer, count: int) -> Iterator[list[int]]:
    """Prompts of that many random ids, ever others."""
    rng = np.random.default_rng(0)
    while True:
        ids = rng.integers(tokenizer.size, size=count).tolist()
        if tokenizer.add_bos and tokenizer.bos is not None:
            ids[0] = tokenizer.bos
        yield ids
