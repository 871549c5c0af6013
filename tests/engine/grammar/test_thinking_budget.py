"""Budgets of thoughts: where they begin, what is counted, what is forced at the end."""

import pytest
from call_texts import call_tokenizer, call_vocabulary
from grammar_oracle import tokens_of

from minillama.engine.grammar import Constraint, Grammar, LazyGrammar, ThinkingBudget, Triggers
from minillama.errors import OptionError

TOKENIZER = call_tokenizer()


def forced_after(budget: ThinkingBudget, text: str) -> str:
    """The tokens that are forced after a text, put together."""
    constraint = Constraint(None, budget, TOKENIZER, has_ends=True)
    for token in TOKENIZER.encode(text):
        assert token in tokens_of(constraint.allowed), text
        constraint.accept(token)
    forced = []
    while len(allowed := tokens_of(constraint.allowed)) == 1:
        forced += allowed
        constraint.accept(allowed[0])
    assert len(allowed) == TOKENIZER.size
    return TOKENIZER.decode(forced, special=True)


OPEN, CLOSED = {"is_open": True}, {"is_open": False}


@pytest.mark.parametrize(
    ("options", "text", "forced"),
    [
        ({"tokens": 3, **OPEN}, "ab", ""),
        ({"tokens": 3, **OPEN}, "abc", "</think>"),
        ({"tokens": 3, **OPEN, "message": " So"}, "abc", " So</think>"),
        ({"tokens": 3, **OPEN, "begun": "\n"}, "ab", "</think>"),  # the template's new line is one of the tokens
        ({"tokens": 0, **OPEN, "begun": "\n"}, "", "</think>"),
        ({"tokens": 3, **OPEN}, "a</think>bcdefg", ""),
        ({"tokens": 2, **OPEN}, "a</think>b<think>cd", "</think>"),  # later thoughts have a budget of their own
        ({"tokens": 3, **CLOSED}, "abcdef", ""),
        ({"tokens": 3, **CLOSED}, "<think>abc", "</think>"),
        ({"tokens": 0, **CLOSED}, "<think>", "</think>"),
        ({"tokens": -1, **OPEN}, "abc" * 50, ""),
        ({"tokens": 3, **OPEN, "ends": ("<tool_call>",)}, "a<tool_call>bcde", ""),
    ],
)
def test_what_is_forced(options: dict, text: str, forced: str) -> None:
    assert forced_after(ThinkingBudget("<think>", "</think>", **options), text) == forced


def test_tags_of_several_tokens() -> None:
    budget = ThinkingBudget("[T]", "[/T]", 3)
    assert forced_after(budget, "x[T]abc") == "[/T]"
    assert forced_after(ThinkingBudget("[T]", "[/T]", 5), "x[T]a[/T]bcdefg") == ""
    assert forced_after(budget, "x[T]a[/") == "[/T]"  # the budget ends within the tag


def test_a_trigger_in_thoughts_does_not_count() -> None:
    grammar = Grammar('root ::= "<tool_call>" "x"', call_vocabulary())
    for in_thoughts in (False, True):
        lazy = LazyGrammar(grammar, Triggers(words=("<tool_call>",), in_thoughts=in_thoughts))
        constraint = Constraint(
            lazy.start(), ThinkingBudget("<think>", "</think>", is_open=True), TOKENIZER, has_ends=True
        )
        for token in TOKENIZER.encode("a<tool_call>"):
            constraint.accept(token)
        assert (len(tokens_of(constraint.allowed)) == 1) == in_thoughts
    constraint.accept(TOKENIZER.encode("x")[0])
    assert tokens_of(constraint.allowed) == [1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("<think>", "</think>", -2), "reasoning_budget is -2"),
        (("<think>", "", 5), "an empty tag"),
    ],
)
def test_refused(given: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ThinkingBudget(*given)
