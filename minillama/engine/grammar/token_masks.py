"""Masks of tokens: a walk of the vocabulary's trie and the grammar's states.

Inside a JSON string nearly all tokens fit, and those that do not leave the string fit whatever stands around it. So
the walk from such a wide character set is made once, with nothing under it; only its ends go on in the rules around.
"""

from collections import OrderedDict

import numpy as np

from minillama.array_types import Bool, Int, UInt32
from minillama.engine.grammar.pushdown import BOTTOM, DEAD, Pushdown
from minillama.engine.grammar.rules import CharSet, TokenSet
from minillama.engine.grammar.token_trie import WHOLE, Tail, TokenTrie, decode_piece, listed

Nodes = Int[np.ndarray, "_"]
MOST_MASKS = 512  # kept, by the latest use
MOST_WALKS = 64  # of wide sets, each with a byte for every token
MOST_ALONE = 8  # wide sets of one state that are walked alone; more are walked together
WIDE = 0.25  # of the first characters of all tokens


class TokenMasks:
    """Masks of tokens for the states of one grammar; they are kept."""

    def __init__(self, machine: Pushdown, trie: TokenTrie) -> None:
        self._machine, self._trie = machine, trie
        alphabet, letters = trie.alphabet
        self._kinds = machine.classes(alphabet)[letters]  # the class of the character that leads to each node
        self._first_kinds = np.bincount(self._kinds[1 : 1 + trie.child_count[0]], minlength=machine.class_count)
        self._tails: dict[CharSet, Bool[np.ndarray, K]] = {}
        self._alone: OrderedDict[int, tuple[Bool[np.ndarray, V], Nodes]] = OrderedDict()
        self._kept: OrderedDict[tuple[int, Tail], Bool[np.ndarray, V]] = OrderedDict()

    def mask(self, state: int, tail: Tail = WHOLE) -> UInt32[np.ndarray, "W"]:
        """The tokens that fit, as bits, without those that end a text.

        tail: the beginning of a character that is there already. The array is read-only.
        """
        key = state, tail
        if key not in self._kept:
            self._machine.begin()
            allowed = self._whole(state) if tail == WHOLE else self._within_character(state, tail)
            self._kept[key] = pack_bits(allowed)
            self._kept[key].flags.writeable = False
        self._kept.move_to_end(key)
        if len(self._kept) > MOST_MASKS:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _whole(self, state: int) -> Bool[np.ndarray, "V"]:
        allowed = np.zeros(len(self._trie.pieces), bool)
        narrow: set[int] = set()
        ends: dict[int, list[Nodes]] = {}
        alone = self._wide_places(state)
        for number in self._machine.stack_numbers(state):
            if number == BOTTOM:
                continue
            place, under = self._machine.stack(number)
            element = self._machine.elements[place]
            if isinstance(element, TokenSet):
                self._add_token(allowed, element)
            elif place in alone:
                inside, reached = self._walk_alone(place)
                allowed |= inside
                if under != BOTTOM:
                    ends.setdefault(under, []).append(reached)
            else:
                narrow.add(number)
        if narrow:
            self._walk(allowed, np.zeros(1, np.int64), self._machine.state_of(narrow))
        for under, nodes in ends.items():
            self._walk(allowed, np.unique(np.concatenate(nodes)), self._machine.after(under))
        return allowed

    def _add_token(self, allowed: Bool[np.ndarray, "V"], element: TokenSet) -> None:
        has_text = np.zeros_like(allowed)
        has_text[self._trie.tokens] = True
        chosen = np.arange(len(allowed)) == element.token
        allowed |= has_text & (chosen != element.negated)

    def _wide_places(self, state: int) -> set[int]:
        """Places of a state whose walks are made alone."""
        places = {place for place, _ in self._machine.stacks(state) if self._is_wide(place)}
        return places if len(places) <= MOST_ALONE else set()

    def _is_wide(self, place: int) -> bool:
        members = self._machine.accepts(place)
        if members is None:
            return False
        has = np.frombuffer(members, bool)
        return float(self._first_kinds[has].sum()) > WIDE * float(self._first_kinds.sum())

    def _walk_alone(self, place: int) -> tuple[Bool[np.ndarray, "V"], Nodes]:
        """The tokens that fit a rule from a place on.

        Returns them, and the nodes where the rule can end."""
        if place not in self._alone:
            allowed = np.zeros(len(self._trie.pieces), bool)
            ends = self._walk(allowed, np.zeros(1, np.int64), self._machine.state_at(place))
            self._alone[place] = allowed, ends
        self._alone.move_to_end(place)
        if len(self._alone) > MOST_WALKS:
            self._alone.popitem(last=False)
        return self._alone[place]

    def _walk(self, allowed: Bool[np.ndarray, "V"], nodes: Nodes, state: int) -> Nodes:
        """Mark the tokens that go on from some nodes.

        Returns the nodes below them where the text can end. nodes: different ones, all reached in this state.
        """
        trie, machine = self._trie, self._machine
        states = np.full(len(nodes), state, np.int64)
        reached, ends = [], [np.zeros(0, np.int64)]
        while True:
            self._mark_cut(allowed, nodes, states)
            counts = trie.child_count[nodes]
            children = listed(trie.first_child[nodes], counts)
            if not children.size:
                break
            after = machine.steps(np.repeat(states, counts), self._kinds[children])
            alive = after != DEAD
            nodes, states = children[alive], after[alive]
            reached.append(nodes)
            ends.append(nodes[machine.completes(states)])
        for nodes in reached:
            allowed[trie.tokens[listed(trie.first_token[nodes], trie.token_count[nodes])]] = True
        return np.concatenate(ends)

    def _mark_cut(self, allowed: Bool[np.ndarray, "V"], nodes: Nodes, states: Int[np.ndarray, "N"]) -> None:
        """Mark the tokens that end within a character after these nodes."""
        trie = self._trie
        counts = trie.cut_count[nodes]
        cuts = listed(trie.first_cut[nodes], counts)
        if cuts.size:
            found, rows = np.unique(np.repeat(states, counts), return_inverse=True)
            table = np.stack([self._fitting_tails(state) for state in found.tolist()])
            allowed[trie.cut_tokens[cuts]] |= table[rows.reshape(-1), trie.cut_tails[cuts]]

    def _fitting_tails(self, state: int) -> Bool[np.ndarray, "K"]:
        """True for the beginnings of a character that fit in a state."""
        fitting = np.zeros(len(self._trie.tails), bool)
        for element in {self._machine.elements[place] for place, _ in self._machine.stacks(state)}:
            if isinstance(element, CharSet):
                if element not in self._tails:
                    self._tails[element] = np.array([element.may_complete(*tail) for tail in self._trie.tails], bool)
                fitting |= self._tails[element]
        return fitting

    def _within_character(self, state: int, tail: Tail) -> Bool[np.ndarray, "V"]:
        """The tokens that go on with a character that has begun."""
        allowed = np.zeros(len(self._trie.pieces), bool)
        for token in self._trie.late:
            decoded = decode_piece(self._trie.pieces[token], tail)
            if decoded is not None:
                after = self._machine.read(state, decoded.characters)
                whole = decoded.tail == WHOLE
                allowed[token] = after != DEAD if whole else self._machine.may_complete(after, *decoded.tail)
        return allowed


def pack_bits(allowed: Bool[np.ndarray, "V"]) -> UInt32[np.ndarray, "W"]:
    """Bit i % 32 of word i // 32 for each of the flags."""
    padded = np.zeros(-(-len(allowed) // 32) * 32, bool)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view("<u4")
