"""The masks of a grammar are those that llama.cpp's stacks give, token by token."""

import random

import numpy as np
import pytest
from grammar_oracle import Oracle, readable_tokenizer, readable_vocabulary, tokens_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from vocabularies import bpe_metadata

from minillama.engine.grammar import Grammar, GrammarVocabulary
from minillama.engine.grammar.token_masks import MOST_ALONE
from minillama.engine.grammar.token_trie import build_trie, decode_piece
from minillama.errors import OptionError
from minillama.tokenizer.load_tokenizer import load_tokenizer

LITERALS = st.sampled_from(['"a"', '"ab"', '"b"', '"c1"', '"\\""', '"日"', '"{"', '"12"'])
SETS = st.sampled_from(["[a-c]", "[^a]", '[^"]', "[0-9]", ".", "[é日]", "[^\\n-z]", "<[2]>", "!<[7]>"])
REFERENCES = {  # to a rule after it, or behind a literal
    "root": st.sampled_from(["x", "y", '"a" root']),
    "x": st.sampled_from(["y", '"b" x', '"a" root']),
    "y": st.sampled_from(['"a" y', '"c1" x', "[^b] root"]),
}
TIMES = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}"])


@st.composite
def grammars(draw: st.DrawFn) -> str:
    """Rules of random elements; many of them are ambiguous."""

    def choices(name: str) -> st.SearchStrategy[str]:
        symbols = st.deferred(lambda: LITERALS | SETS | REFERENCES[name] | groups)
        items = st.tuples(symbols, TIMES).map("".join)
        sequences = st.lists(items, max_size=3).map(" ".join).map(lambda text: text or '""')
        alternatives = st.lists(sequences, min_size=1, max_size=3).map(" | ".join)
        groups = alternatives.map("({})".format)
        return alternatives

    return "".join(f"{name} ::= {draw(choices(name))}\n" for name in REFERENCES)


@settings(max_examples=12)
@given(grammars(), st.integers(0, 2**32))
def test_masks_are_those_of_all_stacks(text: str, seed: int) -> None:
    try:
        _compare(text, random.Random(seed))
    except OptionError as error:
        assume("begins with itself" not in str(error) and "too many ways" not in str(error))
        raise


def _compare(text: str, rng: random.Random) -> None:
    oracle, state = Oracle(text, readable_tokenizer()), Grammar(text, readable_vocabulary()).start()
    for _ in range(4):
        allowed = oracle.allowed()
        assert tokens_of(state.allowed()) == allowed
        assert [token for token in range(readable_tokenizer().size) if state.allows(token)] == allowed
        assert state.is_complete == bool(set(allowed) & readable_tokenizer().eog)
        if not allowed or oracle.ended:
            return
        token = rng.choice(allowed)
        oracle.accept(token)
        state = state.accept(token)
        if len(oracle.stacks) > 50:
            return


@pytest.mark.parametrize("count", [MOST_ALONE, MOST_ALONE + 1])
def test_wide_sets_alone_and_together(count: int) -> None:
    """Many wide sets in one state are one walk of the vocabulary."""
    text = "root ::= " + " ".join(["[^b]?"] * count)
    _compare(text, random.Random(count))
    grammar = Grammar(text, GrammarVocabulary(readable_tokenizer()))
    grammar.start().allowed()
    assert len(grammar.masks._alone) == (count if count <= MOST_ALONE else 0)


def test_a_token_that_does_not_fit() -> None:
    state = Grammar('root ::= "a"', readable_vocabulary()).start()
    with pytest.raises(OptionError, match=r"token \d+ \('b'\) does not fit the grammar"):
        state.accept(readable_tokenizer().tokens.index("b"))


def test_states_are_values() -> None:
    first = Grammar('root ::= "ab" "c"', readable_vocabulary()).start()
    before = first.allowed().copy()
    after = first.accept(readable_tokenizer().tokens.index("ab"))
    assert np.array_equal(first.allowed(), before)
    assert not np.array_equal(after.allowed(), before)
    with pytest.raises(ValueError, match="read-only"):
        first.allowed()[0] = 0


def test_a_text_that_is_there_already() -> None:
    state = Grammar('root ::= "abc" [0-9]', readable_vocabulary()).start().accept_text("abc")
    assert [readable_tokenizer().tokens[token] for token in tokens_of(state.allowed())] == list("0123456789")
    with pytest.raises(OptionError, match="does not fit the grammar"):
        state.accept_text("x")


class TestBytes:
    """Tokens that end or begin within a character."""

    vocabulary = GrammarVocabulary(load_tokenizer(bpe_metadata(["\u00c3 \u00a9", "\u00e6 \u0139", "a \u00c3"])))

    def texts(self, grammar: str, *read: bytes) -> set[bytes]:
        pieces = self.vocabulary.pieces
        state = Grammar(grammar, self.vocabulary).start()
        for piece in read:
            state = state.accept(pieces.index(piece))
        return {pieces[token] for token in tokens_of(state.allowed())}

    def test_a_character_of_several_tokens(self) -> None:
        assert self.texts('root ::= "aé"') == {b"a", b"a\xc3"}
        assert self.texts('root ::= "aé"', b"a") == {b"\xc3", "é".encode()}
        assert self.texts('root ::= "aé"', b"a\xc3") == {b"\xa9"}

    def test_a_set_of_characters(self) -> None:
        assert self.texts("root ::= [à-é]", b"\xc3") == {bytes([byte]) for byte in range(0xA0, 0xAA)}
        assert self.texts("root ::= [一-鿿]") >= {b"\xe4", b"\xe9", b"\xe6\x97"} - {b"\xe3"}

    def test_a_negated_set_wants_all_that_it_may_become(self) -> None:
        """llama.cpp's rule."""
        first = self.texts("root ::= [^é]")
        assert "é".encode() not in first
        assert b"\xc3" not in first
        assert b"\xc4" in first

    @given(st.text(), st.integers(1, 3))
    def test_pieces_of_a_text(self, text: str, size: int) -> None:
        whole, read, tail = text.encode(), "", (0, 0)
        for place in range(0, len(whole), size):
            decoded = decode_piece(whole[place : place + size], tail)
            assert decoded is not None
            read, tail = read + decoded.characters, decoded.tail
        assert (read, tail) == (text, (0, 0))

    @given(st.binary(max_size=6))
    def test_any_bytes(self, piece: bytes) -> None:
        decoded = decode_piece(piece)
        valid = [piece + rest for rest in (b"", b"\x80", b"\xbf\x80", b"\x90\x80\x80", b"\xbf", b"\xa0\x80")]
        if any(_is_text(whole) for whole in valid):
            assert decoded is not None
            assert piece.startswith(decoded.characters.encode())

    def test_tokens_without_text(self) -> None:
        trie = build_trie([b"", b"a", b"\x00", b"\xff", b"ab", b"a"])
        assert sorted(trie.tokens.tolist()) == [1, 4, 5]


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
