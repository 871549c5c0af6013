"""Grammars that begin after a trigger."""

import pytest
from grammar_oracle import readable_tokenizer, readable_vocabulary, tokens_of

from minillama.engine.grammar import Grammar, GrammarCompiler, LazyGrammar, LazyState, Triggers
from minillama.errors import OptionError

TOOL = readable_tokenizer().tokens.index("<tool>")


def after(triggers: Triggers, grammar: str, *texts: str) -> object:
    """The state after some tokens."""
    state = LazyGrammar(Grammar(grammar, readable_vocabulary()), triggers).start()
    for text in texts:
        state = state.accept(readable_tokenizer().tokens.index(text))
    return state


def allowed(state: object) -> list[str]:
    return [readable_tokenizer().tokens[token] for token in tokens_of(state.allowed())]


def test_all_tokens_before_the_trigger() -> None:
    state = after(Triggers(words=["ab"]), 'root ::= "ab" "c"', "x", "b", "e")
    assert isinstance(state, LazyState)
    assert state.is_complete
    assert len(allowed(state)) == readable_tokenizer().size
    assert all(map(state.allows, range(readable_tokenizer().size)))


@pytest.mark.parametrize("texts", [("x", "ab"), ("a", "b"), ("x", "a", "b"), ("{", "a", "b")])
def test_a_word_is_the_beginning_of_the_grammar(texts: tuple[str, ...]) -> None:
    assert allowed(after(Triggers(words=["ab"]), 'root ::= "ab" "c"', *texts)) == ["c"]


def test_only_a_part_of_a_token_is_behind_the_trigger() -> None:
    assert allowed(after(Triggers(words=["b"]), 'root ::= "bc" "x"', "x", "abc")) == ["x"]


def test_a_group_of_a_pattern() -> None:
    triggers = Triggers(patterns=[r"x(?:\s*)(\{)"])
    assert isinstance(after(triggers, 'root ::= "{" "1"', "{"), LazyState)
    assert allowed(after(triggers, 'root ::= "{" "1"', "x", " ", "{")) == ["1"]


def test_a_token() -> None:
    state = after(Triggers(tokens=[TOOL]), 'root ::= "<tool>" "x"', "a", "<tool>")
    assert allowed(state) == ["x"]
    assert allowed(after(Triggers(tokens=[TOOL]), 'root ::= <[2]> "x"', "<tool>")) == ["x"]


def test_a_text_that_does_not_fit() -> None:
    with pytest.raises(OptionError, match="'abc' after a trigger does not fit"):
        after(Triggers(words=["ab"]), 'root ::= "ab" "x"', "abc")


def test_refused() -> None:
    with pytest.raises(OptionError, match="has no triggers"):
        Triggers()
    with pytest.raises(OptionError, match="is malformed"):
        Triggers(patterns=["("])


class TestCompiler:
    compiler = GrammarCompiler(readable_tokenizer())

    def test_nothing(self) -> None:
        assert self.compiler.compile() is None

    def test_both(self) -> None:
        with pytest.raises(OptionError, match="both given"):
            self.compiler.compile('root ::= "a"', {})

    def test_kept(self) -> None:
        first = self.compiler.compile('root ::= "a"')
        assert self.compiler.compile('root ::= "a"') is first
        lazy = self.compiler.compile('root ::= "a"', triggers=Triggers(words=["a"]))
        assert isinstance(lazy, LazyGrammar)
        assert lazy.grammar is first
        for number in range(30):
            self.compiler.compile(f'root ::= "{number}"')
        assert self.compiler.compile('root ::= "a"') is not first
