"""Grammars as llama.cpp reads them, in a few lines: all stacks of a text, and every token tried by itself."""

import random
from collections.abc import Container
from functools import cache

import numpy as np

from minillama.engine.grammar import Grammar, GrammarVocabulary
from minillama.engine.grammar.gbnf_parser import parse_gbnf
from minillama.engine.grammar.rules import CharSet, RuleRef, TokenSet
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.tokenize import parsed_special_tokens
from minillama.tokenizer.vocabulary import CONTROL, NORMAL, Vocabulary

Stack = tuple[tuple, ...]  # sequences of elements that are still to come, the next one last


class Oracle:
    """The stacks of a grammar after some tokens; characters that tokens share are not handled."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        rules = parse_gbnf(text, lambda name: None)
        self.rules = rules.alternatives
        self.stacks = self.opened({((RuleRef(rules.start),),)})
        self.ended = False

    def opened(self, stacks: set[Stack]) -> frozenset[Stack]:
        """Stacks whose next element is a character or a token."""
        todo, found, seen = list(stacks), set(), set()
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if not stack:
                found.add(stack)
            elif not stack[-1]:
                todo.append(stack[:-1])
            elif isinstance(stack[-1][0], RuleRef):
                rest = (*stack[:-1], stack[-1][1:]) if stack[-1][1:] else stack[:-1]
                todo += [(*rest, sequence) for sequence in self.rules[stack[-1][0].rule]]
            else:
                found.add(stack)
        return frozenset(found)

    def read(self, stacks: frozenset[Stack], text: str) -> frozenset[Stack]:
        for character in text:
            stacks = self.opened(
                {
                    (*stack[:-1], stack[-1][1:])
                    for stack in stacks
                    if stack and isinstance(stack[-1][0], CharSet) and stack[-1][0].has(ord(character))
                }
            )
        return stacks

    def after(self, token: int) -> frozenset[Stack]:
        piece = self.tokenizer.piece(token, special=True)
        read = self.read(self.stacks, piece.decode()) if piece else frozenset()
        whole = {
            (*stack[:-1], stack[-1][1:])
            for stack in self.stacks
            if stack and isinstance(stack[-1][0], TokenSet) and (stack[-1][0].token == token) != stack[-1][0].negated
        }
        return read | self.opened(whole)

    def allowed(self) -> list[int]:
        ends = self.tokenizer.eog
        if self.ended:
            return sorted(ends)
        return [
            token
            for token in range(self.tokenizer.size)
            if (() in self.stacks if token in ends else bool(self.after(token)))
        ]

    def accept(self, token: int) -> None:
        if token in self.tokenizer.eog:
            self.ended = True
        else:
            self.stacks = self.after(token)


def plain_tokenizer(texts: tuple[str, ...], control: Container[str], unknown: int | None = None) -> Tokenizer:
    """A tokenizer of these tokens, BOS and EOS first, which encodes character by character.

    control: the texts of control tokens. unknown: the token of other characters; None for a KeyError.
    """
    ids = {text: place for place, text in enumerate(texts)}
    attributes = bytes(CONTROL if text in control else NORMAL for text in texts)
    vocabulary = Vocabulary(texts, ids, attributes, 0, 1, None, frozenset({1}))
    return Tokenizer(
        vocabulary,
        merge=lambda text: [ids[one] if unknown is None else ids.get(one, unknown) for one in text],
        normal_piece=lambda text: text.encode(),
        specials=parsed_special_tokens(vocabulary, lambda text: False),
        add_bos=False,
        add_eos=False,
        add_space_prefix=False,
        drop_space_prefix=False,
        clean_spaces=False,
    )


@cache
def readable_tokenizer() -> Tokenizer:
    """A vocabulary of whole characters: letters, digits, marks, short words, JSON pieces."""
    words = ["ab", "abc", "ba", "aab", '"', '":', '", "', "{", "}", '{"', "[", "]", ",", ":", "true", "false", "null"]
    words += ["12", "-1", "0", ".", "e", "é", "日本", "日", "\n", "  ", "\\", '\\"', "\\u", "😀", "xyz", "_b", "c1"]
    words += [*"abcdefxyz123456789-+ E"]
    texts = ("<s>", "</s>", "<tool>", *dict.fromkeys(words))
    return plain_tokenizer(texts, texts[:3], unknown=0)


@cache
def readable_vocabulary() -> GrammarVocabulary:
    return GrammarVocabulary(readable_tokenizer())


def tokens_of(bits: np.ndarray) -> list[int]:
    """The tokens of a mask."""
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist()


def random_text(grammar: Grammar, rng: random.Random, most: int = 60) -> tuple[str, bool]:
    """A text of random tokens that the grammar allows, and whether it came to its end.

    After some tokens the shorter ones are preferred, so that repetitions end.
    """
    state, text, tokenizer = grammar.start(), b"", grammar.vocabulary.tokenizer
    for place in range(most):
        allowed = tokens_of(state.allowed())
        ends = [token for token in allowed if token in tokenizer.eog]
        if ends and (len(ends) == len(allowed) or rng.random() < 0.3 or place > most // 3):
            return text.decode(), True
        others = [token for token in allowed if token not in ends]
        if not others:  # the vocabulary lacks what comes next
            break
        token = rng.choice(others)
        state = state.accept(token)
        text += tokenizer.piece(token, special=True)
    return text.decode("utf-8", "replace"), False
