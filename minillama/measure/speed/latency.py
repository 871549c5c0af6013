"""Latency: time to first token, cold and warm, and time between tokens.

Cold is a fresh process: it starts Python, imports JAX, opens the model, compiles or loads compiled programs from the
user's cache folder, reads the prompt, and samples a token. Warm is a loaded model whose programs have run before. The
prompts are random token ids that differ from run to run, with BOS first if the model needs it. Tokens are sampled with
the default options of `LLM.generate`, and EOS does not end the text.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from minillama import env
from minillama.engine.llm import LLM
from minillama.engine.load import load
from minillama.errors import OptionError
from minillama.measure.host.child_process import call_in_child
from minillama.tokenizer import Tokenizer

PERCENTILES = (50, 90, 95, 99)

Advance = Callable[[], object]  # called after each run


@dataclass(frozen=True)
class ColdStart:
    """Time from the start of a process to its first token, in seconds."""

    prompt_tokens: int
    start: float  # until the load of the model begins: Python and imports
    load: float
    compile: float  # or loading compiled programs from the cache folder
    prompt: float  # prefill
    first_step: float  # from the logits of the prompt to a token
    total: float  # measured by the parent process, so a little more than the sum

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True)
class Latency:
    """Latency of one prompt length on a warm model, in seconds.

    There is one value per repeat, except for `between`, which has all values of all repeats.
    """

    prompt_tokens: int
    generated_tokens: int
    first_token: tuple[float, ...]  # from the call to the first token: prompt + first_step
    prompt: tuple[float, ...]
    first_step: tuple[float, ...]
    between: tuple[float, ...]  # from one token to the next
    total: tuple[float, ...]  # from the call to the last token

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`, the percentiles before the single values."""
        figures = {f"{name}_p{p}": value for name in ("first_token", "between", "total")
                   for p, value in zip(PERCENTILES, percentiles(getattr(self, name)), strict=True)}  # fmt: skip
        return {
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            **figures,
            **asdict(self),
        }


def percentiles(values: Sequence[float], percents: Sequence[int] = PERCENTILES) -> tuple[float, ...]:
    """Percentiles with linear interpolation; zeros without values."""
    if not values:
        return tuple(0.0 for _ in percents)
    return tuple(float(value) for value in np.percentile(values, percents))


def measure_latency(
    llm: LLM, prompt_tokens: int, *, n: int = 64, repeats: int = 5, advance: Advance = lambda: None
) -> Latency:
    """Measure a loaded model several times, after one unmeasured run.

    n: tokens to generate, including the first. Raises OptionError if prompt and answer do not fit in the context.
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
    """Measure a fresh process that loads a model file and samples one token.

    threads, platform: as in `env.prepare`. Raises ResourceError, with the last error line, if the process fails.
    """
    started = time.time()
    values = call_in_child(run_cold_start, str(model), prompt_tokens, ctx_size, threads, platform)
    began, ended = values["began"], values["ended"]  # type: ignore[index]
    parts = {name: values[name] for name in ("load", "compile", "prompt", "first_step")}  # type: ignore[index]
    return ColdStart(prompt_tokens=prompt_tokens, start=began - started, total=ended - started, **parts)


def run_cold_start(
    model: str, prompt_tokens: int, ctx_size: int, threads: int | None, platform: str | None
) -> dict[str, float]:
    """Body of the child process of `measure_cold`: load and sample; times of the system clock."""
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
    """An endless sequence of different prompts of `count` random token ids."""
    rng = np.random.default_rng(0)
    while True:
        ids = rng.integers(tokenizer.size, size=count).tolist()
        if tokenizer.add_bos and tokenizer.bos is not None:
            ids[0] = tokenizer.bos
        yield ids
