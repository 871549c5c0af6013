"""Grammars of a model: compiled once, kept for later texts."""

from collections import OrderedDict
from functools import cached_property
from threading import Lock

from minillama.engine.grammar.grammar import Grammar, GrammarVocabulary
from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf
from minillama.engine.grammar.triggers import LazyGrammar, Triggers
from minillama.errors import OptionError
from minillama.tokenizer import Tokenizer

MOST_KEPT = 16
MOST_CELLS_KEPT = 1 << 22  # of one grammar's table, 16 MiB; a larger one is made anew


class GrammarCompiler:
    """Compiles grammars for a tokenizer. Several threads may use it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = Lock()

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the model."""
        return self._tokenizer

    @cached_property
    def vocabulary(self) -> GrammarVocabulary:
        """The tokens as a trie, made on first use: about a second for 128,000 tokens."""
        return GrammarVocabulary(self._tokenizer)

    def compile(
        self, grammar: str | None = None, json_schema: object = None, triggers: Triggers | None = None
    ) -> Grammar | LazyGrammar | None:
        """Compile a text in GBNF or a JSON schema; None for neither.

        json_schema: a mapping, or its text. triggers: the text before one of them is free.
        Raises OptionError for both, for a malformed grammar, and for a schema that cannot be kept.
        """
        if grammar is not None and json_schema is not None:
            raise OptionError("grammar and json_schema are both given; use one of them")
        text = grammar if json_schema is None else schema_to_gbnf(json_schema)
        if text is None or text == "":  # llama.cpp's way to say none
            return None
        compiled = self._compiled(text)
        return compiled if triggers is None else LazyGrammar(compiled, triggers)

    def _compiled(self, text: str) -> Grammar:
        with self._lock:
            for large in [name for name, kept in self._kept.items() if kept.machine.cell_count > MOST_CELLS_KEPT]:
                del self._kept[large]
            found = self._kept.get(text) or Grammar(text, self.vocabulary)
            self._kept[text] = found
            self._kept.move_to_end(text)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return found
