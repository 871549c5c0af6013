"""The options of one generation, except sampling."""

from collections.abc import Sequence
from dataclasses import dataclass

from minillama.errors import OptionError, quoted
from minillama.option_values import as_int, check_flag
from minillama.sampling import SamplingOptions

LARGEST_DRAFT, LARGEST_NGRAM = 63, 16
LIMITS = (("draft_max", 0, LARGEST_DRAFT), ("draft_min", 0, LARGEST_DRAFT), ("ngram_max", 1, LARGEST_NGRAM))


@dataclass(frozen=True)
class Request:
    """When to end, and what to do when the context is full.

    Raises OptionError for impossible values.
    """

    n: int = -1  # most tokens to generate; -1: no limit, -2: until the context is full
    stop: Sequence[str] = ()  # strings that end the text and are not part of it
    context_shift: bool = False  # when the context is full drop half of it and go on, instead of Reason.LENGTH
    keep: int = 0  # tokens at the start that a context shift spares; -1: the whole prompt
    ignore_eos: bool = False  # never end by an end token
    lookup: bool = False  # guess tokens from the context's own repeats and check them in one pass; the text is the same
    draft_max: int | None = None  # most tokens of one guess, 0: none; None: 7 of lookup, 3 of a draft model
    draft_min: int = 0  # a shorter guess of the draft model is dropped
    draft_p_min: float = 0.0  # least probability, among the ten likeliest, of a token that the draft model guesses
    ngram_max: int = 4  # most tokens at the end of the context that are looked for earlier in it

    def __post_init__(self) -> None:
        n, keep = as_int(self.n), as_int(self.keep)
        if n is None or n < -2:
            raise OptionError(
                f"n is {quoted(self.n)}; expected a number of tokens, -1 for no limit or -2 for a full context"
            )
        if keep is None or keep < -1:
            raise OptionError(f"keep is {quoted(self.keep)}; expected a number of tokens, or -1 for the whole prompt")
        for name, least, most in LIMITS:
            value = as_int(getattr(self, name))
            if getattr(self, name) is not None and (value is None or not least <= value <= most):
                raise OptionError(f"{name} is {quoted(getattr(self, name))}; expected {least} to {most}")
        if not isinstance(self.draft_p_min, int | float) or not 0 <= self.draft_p_min <= 1:
            raise OptionError(f"draft_p_min is {quoted(self.draft_p_min)}; expected a probability, 0 to 1")
        for name in ("context_shift", "ignore_eos", "lookup"):
            check_flag(name, getattr(self, name))
        words = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(words, Sequence) or not all(isinstance(word, str) and word for word in words):
            raise OptionError(f"stop is {quoted(self.stop)}; expected a list of non-empty strings")
        for name, value in (("n", n), ("keep", keep), ("stop", tuple(words))):
            object.__setattr__(self, name, value)


class GenerateOptions(SamplingOptions, total=False):
    """The fields of `Request` and of `Sampling` as keyword arguments, and a grammar.

    grammar: a text in GBNF, or what `GrammarCompiler` made of one. json_schema: a mapping, or its text. thinking: a
    `ThinkingBudget`.
    """

    n: int
    stop: Sequence[str]
    context_shift: bool
    keep: int
    ignore_eos: bool
    lookup: bool
    draft_max: int | None
    draft_min: int
    draft_p_min: float
    ngram_max: int
    grammar: object
    json_schema: object
    thinking: object
