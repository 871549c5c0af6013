"""Texts with guesses: the passes that wrote them, and their speed against plain decoding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Unpack

import numpy as np

from minillama.engine.backends.base import Handle
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.engine.generate_options import GenerateOptions
from minillama.engine.llm import LLM
from minillama.engine.result import Completion
from minillama.engine.session import Mask, Session
from minillama.lab.language import translate
from minillama.lab.measuring import measuring
from minillama.lab.speculation.pass_costs import RowCosts
from minillama.lab.widgets.running_line import running


@dataclass(frozen=True)
class Pass:
    """One pass: tokens that were guessed, and tokens that it wrote."""

    guessed: int
    written: int


class LoggedSession(Session):
    """A session that notes its passes; without `model_guesses` it has no draft model."""

    def __init__(self, llm: LLM, *, model_guesses: bool = True) -> None:
        guesser = llm.draft.for_one_text() if model_guesses and llm.draft is not None else None
        super().__init__(llm.backend, llm.ctx_size, llm.batches, llm.cache_types, guesser)
        self.passes: list[Pass] = []

    def generate(
        self, chain: Handle, state: Handle, token: Handle | int, draft: Sequence[int] = (), allowed: Mask | None = None
    ) -> tuple[VerifiedDraft, Handle]:
        """Run a token and a draft as a session does, and note the counts."""
        result, state = super().generate(chain, state, token, draft, allowed)
        self.passes.append(Pass(len(draft), 1 if result.count is None else int(np.asarray(result.count)[0])))
        return result, state


@dataclass(frozen=True)
class LoggedRun:
    """A text and the passes that wrote it, without the one of the prompt."""

    completion: Completion
    passes: tuple[Pass, ...]

    @property
    def tested(self) -> int:
        """Guesses that were compared: all up to the first wrong one."""
        return sum(min(each.written, each.guessed) for each in self.passes)

    @property
    def accepted(self) -> int:
        """Guesses that were right."""
        return sum(each.written - 1 for each in self.passes)

    @property
    def acceptance(self) -> float:
        """Share of the compared guesses that were right; 0 without any."""
        return self.accepted / self.tested if self.tested else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a pass wrote on average."""
        return sum(each.written for each in self.passes) / max(len(self.passes), 1)

    @property
    def mean_guess(self) -> float:
        """Tokens of a guess, over the passes that had one; 0 without any."""
        lengths = [each.guessed for each in self.passes if each.guessed]
        return sum(lengths) / len(lengths) if lengths else 0.0

    def counted_speedup(self, costs: RowCosts, draft: float) -> float:
        """The gain from the passes as they were: tokens over costs.

        draft: cost of a guessed token in plain passes.
        """
        spent = sum(costs.cost(1 + each.guessed) + draft * each.guessed for each in self.passes)
        return sum(each.written for each in self.passes) / spent


@dataclass(frozen=True)
class MeasuredGain:
    """A run with guesses, and its tokens a second over those without, in each round."""

    run: LoggedRun
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of the rounds."""
        return median(self.ratios)


def logged_run(llm: LLM, prompt: str, *, model_guesses: bool = True, **options: Unpack[GenerateOptions]) -> LoggedRun:
    """Continue a text and note its passes."""
    session = LoggedSession(llm, model_guesses=model_guesses)
    done = llm.generate(prompt, session=session, ignore_eos=True, **options)
    return LoggedRun(done, tuple(session.passes[1:]))


@measuring("texts with guesses of a lab", tells_load=True)
def measured_gains(
    llm: LLM, prompt: str, choices: Mapping[str, GenerateOptions], *, rounds: int = 3, **common: Unpack[GenerateOptions]
) -> dict[str, MeasuredGain]:
    """Decode without guesses and with each choice of options, interleaved; the first round compiles.

    A choice with `lookup` has no guesses of the draft model.
    """
    runs: dict[str, LoggedRun] = {}
    ratios: dict[str, list[float]] = {name: [] for name in choices}
    with running(translate("texts"), steps=(rounds + 1) * (len(choices) + 1)) as step:
        for number in range(rounds + 1):
            plain = _speed(logged_run(llm, prompt, **{**common, "draft_max": 0}))  # type: ignore[typeddict-item]
            step()
            for name, options in choices.items():
                chosen: GenerateOptions = {**common, **options}  # type: ignore[typeddict-item]
                runs[name] = logged_run(llm, prompt, model_guesses=not options.get("lookup", False), **chosen)
                step()
                if number:
                    ratios[name].append(_speed(runs[name]) / plain)
    return {name: MeasuredGain(runs[name], tuple(ratios[name])) for name in choices}


def _speed(run: LoggedRun) -> float:
    return run.completion.timings.generated_per_second
