"""Grammars: texts of a form that is given, in GBNF or as a JSON schema.

>>> grammar = GrammarCompiler(llm.tokenizer).compile(json_schema={"type": "integer"})
>>> state = grammar.start()
>>> bits = state.allowed()  # the tokens that may follow
>>> state = state.accept(token)
"""

from minillama.engine.grammar.compiler import GrammarCompiler
from minillama.engine.grammar.constraint import Constraint
from minillama.engine.grammar.grammar import Grammar, GrammarState, GrammarVocabulary
from minillama.engine.grammar.thinking_budget import ThinkingBudget
from minillama.engine.grammar.triggers import LazyGrammar, LazyState, Triggers

__all__ = [
    "Constraint",
    "Grammar",
    "GrammarCompiler",
    "GrammarState",
    "GrammarVocabulary",
    "LazyGrammar",
    "LazyState",
    "ThinkingBudget",
    "Triggers",
]
