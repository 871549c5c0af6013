"""A grammar for the tokens of a model: which tokens may follow, token after token."""

from dataclasses import dataclass, replace
from threading import RLock

import numpy as np

from minillama.array_types import UInt32
from minillama.engine.grammar.gbnf_parser import parse_gbnf
from minillama.engine.grammar.pushdown import DEAD, Pushdown
from minillama.engine.grammar.token_masks import TokenMasks, pack_bits
from minillama.engine.grammar.token_trie import WHOLE, Tail, TokenTrie, build_trie, decode_piece
from minillama.errors import OptionError, quoted
from minillama.tokenizer import Tokenizer


class GrammarVocabulary:
    """The tokens of a model as grammars need them; make it once for a model.

    A control token has its text, as in llama.cpp.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.eog = tokenizer.eog
        self.size = tokenizer.size
        pieces = [tokenizer.piece(token, special=True) for token in range(tokenizer.size)]
        self.pieces = tuple(pieces)
        self.trie: TokenTrie = build_trie([b"" if token in self.eog else piece for token, piece in enumerate(pieces)])
        ends = np.zeros(self.size, bool)
        ends[list(self.eog)] = True
        self.end_bits = pack_bits(ends)
        self.all_bits = pack_bits(np.ones(self.size, bool))

    def token_id(self, text: str) -> int | None:
        """The token of a text, None if it is not exactly one."""
        ids = self.tokenizer.encode(text, add_special=False)
        return ids[0] if len(ids) == 1 else None


class Grammar:
    """A grammar in GBNF for the tokens of a model.

    Texts share the states and masks that it has made.

    Raises OptionError for a text that is no grammar. Several threads may use it.
    """

    def __init__(self, text: str, vocabulary: GrammarVocabulary) -> None:
        self.text, self.vocabulary = text, vocabulary
        self.machine = Pushdown(parse_gbnf(text, vocabulary.token_id))
        self.masks = TokenMasks(self.machine, vocabulary.trie)
        self.lock = RLock()

    def start(self) -> "GrammarState":
        """The state before the first token."""
        return GrammarState(self, self.machine.start)


@dataclass(frozen=True)
class GrammarState:
    """State of one text under a grammar.

    It is a value: `accept` returns the next one."""

    grammar: Grammar
    state: int
    tail: Tail = WHOLE  # the beginning of a character
    ended: bool = False  # after an end token

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return self.ended or (self.tail == WHOLE and self.grammar.machine.is_complete(self.state))

    def allowed(self) -> UInt32[np.ndarray, "W"]:
        """The tokens that may follow, as bits.

        Token i is bit i % 32 of word i // 32; there are ceil(V / 32) words, which are read-only."""
        vocabulary = self.grammar.vocabulary
        if self.ended:
            return vocabulary.end_bits
        with self.grammar.lock:
            bits = self.grammar.masks.mask(self.state, self.tail)
        return bits | vocabulary.end_bits if self.is_complete else bits

    def allows(self, token: int) -> bool:
        """Whether a token may follow; quicker than `allowed`."""
        return self._next(token) is not None

    def accept(self, token: int) -> "GrammarState":
        """The state after a token; raises OptionError for one that may not follow."""
        following = self._next(token)
        if following is None:
            piece = self.grammar.vocabulary.pieces[token].decode("utf-8", "replace")
            raise OptionError(f"token {token} ({quoted(piece)}) does not fit the grammar here")
        return following

    def accept_text(self, text: str) -> "GrammarState":
        """The state after a text that is there already.

        Raises OptionError if it does not fit."""
        with self.grammar.lock:
            state = self.grammar.machine.read(self.state, text)
        if state == DEAD or self.tail != WHOLE:
            raise OptionError(f"the text {quoted(text)} does not fit the grammar")
        return replace(self, state=state)

    def accept_part(self, token: int, piece: bytes) -> "GrammarState | None":
        """The state after a part of a token's bytes; None if they do not fit."""
        vocabulary, machine = self.grammar.vocabulary, self.grammar.machine
        if token in vocabulary.eog or self.ended:
            return replace(self, ended=True) if self.is_complete and token in vocabulary.eog else None
        decoded = decode_piece(piece, self.tail) if piece and 0 not in piece else None
        with self.grammar.lock:
            stacks = set(machine.step_token(self.state, token)) if self.tail == WHOLE and piece else set()
            if decoded is not None:
                after = machine.read(self.state, decoded.characters)
                if decoded.tail == WHOLE:
                    stacks |= machine.stack_numbers(after)
                elif machine.may_complete(after, *decoded.tail):
                    stacks |= machine.stack_numbers(machine.waiting(after))
            state = machine.state_of(stacks)
        if state == DEAD:
            return None
        return replace(self, state=state, tail=WHOLE if decoded is None else decoded.tail)

    def _next(self, token: int) -> "GrammarState | None":
        return self.accept_part(token, self.grammar.vocabulary.pieces[token])
