"""A prompt and its options, checked: token ids, limits, sampling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Unpack

import numpy as np

from minillama.array_types import Integer
from minillama.engine.generate_options import GenerateOptions, Request
from minillama.engine.generation.option_names import check_option_names
from minillama.engine.generation.sampling_defaults import file_defaults, suppressed_tokens
from minillama.errors import OptionError
from minillama.sampling import Sampling, SamplingOptions
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.token_ids import checked_ids

if TYPE_CHECKING:
    from minillama.engine.grammar import GrammarCompiler, GrammarState, LazyState, ThinkingBudget

TextOrIds = str | Sequence[int] | Integer[np.ndarray, "T"]  # ids: checked by `checked_ids`
DRY_BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's
LEAST_ANSWER = 4  # tokens that a context must have room for after a prompt, as in llama-completion


@dataclass(frozen=True)
class TextRequest:
    """One text to continue."""

    ids: tuple[int, ...]  # of the prompt, at least one
    request: Request
    sampling: Sampling  # with the tokens that are never sampled
    grammar: "GrammarState | LazyState | None" = None  # before the first token
    thinking: "ThinkingBudget | None" = None

    def check_fits(self, ctx_size: int) -> None:
        """Raise OptionError if the context has no room for the prompt and an answer."""
        if len(self.ids) > ctx_size - LEAST_ANSWER:
            raise OptionError(
                f"the prompt has {len(self.ids)} tokens, too many for a context of {ctx_size}; raise ctx_size"
            )


@dataclass(frozen=True, eq=False)
class RequestReader:
    """Reads prompts and options for one model."""

    tokenizer: Tokenizer
    metadata: Mapping[str, object]  # of the model's file

    def read(self, prompt: TextOrIds, options: GenerateOptions) -> TextRequest:
        """Check a prompt and its options.

        Raises OptionError for impossible ones; the caller checks that the prompt fits.
        """
        names = {field.name for field in fields(Request)}
        request = Request(**{name: value for name, value in options.items() if name in names})
        others = {name: value for name, value in options.items() if name not in names}
        grammar = self.grammar(others.pop("grammar", None), others.pop("json_schema", None))
        thinking = others.pop("thinking", None)
        _check_thinking(thinking)
        sampling = self.sampling(**others)
        ids = self.ids(prompt, "the prompt")
        never = {*suppressed_tokens(self.metadata, self.tokenizer.size)}
        if request.ignore_eos:
            never |= self.tokenizer.eog
        if never:
            forbidden = tuple((token, -np.inf) for token in sorted(never))
            sampling = replace(sampling, logit_bias=(*sampling.logit_bias, *forbidden))
        return TextRequest(ids, request, sampling, grammar, thinking)

    @cached_property
    def grammars(self) -> "GrammarCompiler":
        """The compiler of grammars for this model."""
        from minillama.engine.grammar import GrammarCompiler

        return GrammarCompiler(self.tokenizer)

    def grammar(self, grammar: object, json_schema: object) -> "GrammarState | LazyState | None":
        """The state of a grammar before the first token; None for neither."""
        if grammar is None and json_schema is None:
            return None
        from minillama.engine.grammar import Grammar, GrammarState, LazyGrammar, LazyState

        if isinstance(grammar, GrammarState | LazyState) and json_schema is None:
            return grammar
        if isinstance(grammar, Grammar | LazyGrammar) and json_schema is None:
            return grammar.start()
        if not isinstance(grammar, str | None):
            raise OptionError(f"grammar is of type {type(grammar).__name__}; expected a text in GBNF")
        compiled = self.grammars.compile(grammar, json_schema)
        return None if compiled is None else compiled.start()

    def ids(self, prompt: TextOrIds, name: str = "ids") -> tuple[int, ...]:
        """Token ids of a text or of ids; BOS for an empty prompt."""
        is_text = isinstance(prompt, str | bytes | bytearray)  # `encode` refuses bytes, which are no ids either
        ids = self.tokenizer.encode(prompt) if is_text else checked_ids(prompt, self.tokenizer.size, name)
        if not ids:
            if self.tokenizer.bos is None or not self.tokenizer.add_bos:
                raise OptionError("the prompt is empty and the model has no BOS token to start from; give a prompt")
            return (self.tokenizer.bos,)
        return tuple(ids)

    def sampling(self, **options: Unpack[SamplingOptions]) -> Sampling:
        """Sampling options in force: those given, else the file's own, else llama.cpp's defaults."""
        check_option_names(options)
        chosen = Sampling(**{**file_defaults(self.metadata), **options})
        if chosen.dry_multiplier and not chosen.dry_sequence_breakers:
            chosen = replace(chosen, dry_sequence_breakers=self._breakers)
        return chosen

    @cached_property
    def _breakers(self) -> tuple[int, ...]:
        """Tokens that hold one of llama.cpp's sequence breakers."""
        marks = [mark.encode() for mark in DRY_BREAKERS]
        pieces = ((token, self.tokenizer.piece(token)) for token in range(self.tokenizer.size))
        return tuple(token for token, piece in pieces if any(mark in piece for mark in marks))


def _check_thinking(thinking: object) -> None:
    """Raise OptionError for anything but a ThinkingBudget or None."""
    if thinking is None:
        return
    from minillama.engine.grammar import ThinkingBudget

    if not isinstance(thinking, ThinkingBudget):
        raise OptionError(f"thinking is of type {type(thinking).__name__}; expected a ThinkingBudget")
