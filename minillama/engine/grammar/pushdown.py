"""The machine of a grammar: states, and the steps between them.

A stack says what is still to come: an element, then what follows in the rules around it. A state is the set of all
stacks that fit the text so far, as in llama.cpp (src/llama-grammar.cpp). Equal stacks and equal states have one number,
so that a step that was made once is a look-up in a table. Characters that no set tells apart are one class.
"""

import numpy as np

from minillama.array_types import Bool, Int, Int32, Integer
from minillama.engine.grammar.rules import LARGEST_CHARACTER, CharSet, Element, RuleRef, Rules, TokenSet
from minillama.errors import OptionError

DEAD = 0  # the state of no stack: no text has such a beginning
BOTTOM = 0  # the empty stack: the text is complete
UNKNOWN = -1
MOST_STACKS = 5_000  # in one state
MOST_STATES = 250_000
MOST_CELLS = 1 << 25  # of the table of states and classes of characters, and of their stacks
CELLS_OF_MEMBER, CELLS_OF_STACK = 8, 50  # memory of a stack in a state, and of a stack, in cells of four bytes
MOST_WORK = 2_000_000  # stacks that are looked at for one mask or one character
MOST_SETS = 1 << 24  # different sets of characters, times the characters that they tell apart
TOO_MANY_WAYS = "the grammar allows too many ways to read this text; make it less ambiguous"

Stack = tuple[int, int]  # a place in `elements`, and the number of the stack under it


class Pushdown:
    """States and steps of the rules of one grammar.

    `start` is the state before the first character, `class_count` the number of classes of characters.

    Raises OptionError where a text could be read in too many ways.
    """

    def __init__(self, rules: Rules) -> None:
        self.elements: list[Element | None] = []  # of all rules, one after another; None ends a sequence
        self._starts: list[list[int]] = []  # places of the alternatives of each rule
        for alternatives in rules.alternatives:
            self._starts.append([self._place(sequence) for sequence in alternatives])
        begin = self._place((RuleRef(rules.start),))
        self._bounds, self._classes, self._members = _character_classes(self.elements)
        self.class_count = int(self._classes.max()) + 1
        self._stacks: list[Stack] = [(-1, -1)]
        self._stack_numbers: dict[Stack, int] = {}
        self._states: list[frozenset[int]] = [frozenset()]
        self._members_held = 0  # by all states together
        self._state_numbers = {frozenset[int](): DEAD}
        self._table = np.full((64, self.class_count), UNKNOWN, np.int32)
        self._table[DEAD] = DEAD
        self._complete = np.zeros(64, bool)
        self.begin()
        self.start = self.state_of(self.closure([(begin, BOTTOM)]))

    @property
    def cell_count(self) -> int:
        """Memory so far: states times the classes of characters, and what their stacks take."""
        stacks = CELLS_OF_MEMBER * self._members_held + CELLS_OF_STACK * len(self._stacks)
        return len(self._states) * self.class_count + stacks

    def begin(self) -> None:
        """Begin a mask or a character: its work is counted from here on."""
        self._work_left = MOST_WORK

    def classes(self, characters: Integer[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
        """The class of each code point."""
        return self._classes[np.searchsorted(self._bounds, characters, side="right") - 1]

    def stack(self, number: int) -> Stack:
        """The stack of a number."""
        return self._stacks[number]

    def stacks(self, state: int) -> list[Stack]:
        """The stacks of a state, without the empty one."""
        return [self._stacks[number] for number in self._states[state] if number != BOTTOM]

    def is_complete(self, state: int) -> bool:
        """Whether the text so far can be the whole text."""
        return BOTTOM in self._states[state]

    def completes(self, states: Integer[np.ndarray, "N"]) -> Bool[np.ndarray, "N"]:
        """`is_complete` of each state."""
        return self._complete[states]

    def read(self, state: int, text: str) -> int:
        """The state after the characters of a text."""
        for kind in self.classes(np.array([ord(character) for character in text], np.int64)).tolist():
            self.begin()
            state = self.step(state, kind)
        return state

    def accepts(self, place: int) -> bytes | None:
        """Membership of each class in the set at a place; None for a token."""
        return self._members[place]

    def state_of(self, stacks: set[int]) -> int:
        """The number of a state."""
        if len(stacks) > MOST_STACKS:
            raise OptionError(TOO_MANY_WAYS)
        key = frozenset(stacks)
        number = self._state_numbers.setdefault(key, len(self._states))
        if number == len(self._states):
            if number >= MOST_STATES or self.cell_count >= MOST_CELLS:
                raise OptionError("the grammar needs too much memory for this text; make it simpler")
            self._states.append(key)
            self._members_held += len(key)
            if number >= len(self._table):
                self._table = np.concatenate([self._table, np.full_like(self._table, UNKNOWN)])
                self._complete = np.concatenate([self._complete, np.zeros_like(self._complete)])
            self._complete[number] = BOTTOM in key
        return number

    def state_at(self, place: int, under: int = BOTTOM) -> int:
        """The state of one stack, whose top is an element that takes a character."""
        return self.state_of({self._push(place, under)})

    def step(self, state: int, kind: int) -> int:
        """The state after a character of a class."""
        found = int(self._table[state, kind])
        if found == UNKNOWN:
            places = [
                (place + 1, under)
                for place, under in self.stacks(state)
                if (members := self._members[place]) is not None and members[kind]
            ]
            found = self.state_of(self.closure(places))
            self._table[state, kind] = found
        return found

    def steps(self, states: Integer[np.ndarray, "N"], kinds: Integer[np.ndarray, "N"]) -> Int32[np.ndarray, "N"]:
        """The states after one character each."""
        found = self._table[states, kinds]
        missing = np.flatnonzero(found == UNKNOWN)
        if missing.size:
            pairs = np.unique(states[missing].astype(np.int64) * self.class_count + kinds[missing])
            for pair in pairs.tolist():
                self.step(*divmod(pair, self.class_count))
            found = self._table[states, kinds]
        return found

    def step_token(self, state: int, token: int) -> set[int]:
        """The stacks after an element that is this token."""
        self.begin()
        places = []
        for place, under in self.stacks(state):
            element = self.elements[place]
            if isinstance(element, TokenSet) and (element.token == token) != element.negated:
                places.append((place + 1, under))
        return self.closure(places)

    def stack_numbers(self, state: int) -> frozenset[int]:
        """Numbers of the stacks of a state."""
        return self._states[state]

    def waiting(self, state: int) -> int:
        """The state without the stacks that take no character: a character has begun."""
        numbers = self._states[state]
        return self.state_of(
            {number for number in numbers if number != BOTTOM and self._members[self._stacks[number][0]] is not None}
        )

    def may_complete(self, state: int, value: int, missing: int) -> bool:
        """Whether the first bytes of a character fit; see `CharSet.may_complete`."""
        elements = {self.elements[place] for place, _ in self.stacks(state)}
        return any(isinstance(element, CharSet) and element.may_complete(value, missing) for element in elements)

    def after(self, under: int) -> int:
        """The state in which the stack of a number is all that is left."""
        return self.state_of(self.closure([self._stacks[under]]) if under != BOTTOM else {BOTTOM})

    def closure(self, todo: list[Stack]) -> set[int]:
        """Open and close rules until each stack begins with a character or a token."""
        found: set[int] = set()
        todo, seen = list(todo), set(todo)
        while todo:
            place, under = todo.pop()
            element = self.elements[place]
            following: list[Stack] = []
            if element is None:
                if under == BOTTOM:
                    found.add(BOTTOM)
                else:
                    following = [self._stacks[under]]
            elif isinstance(element, RuleRef):
                rest = under if self.elements[place + 1] is None else self._push(place + 1, under)
                following = [(start, rest) for start in self._starts[element.rule]]
            else:
                found.add(self._push(place, under))
            for stack in following:
                if stack not in seen:
                    seen.add(stack)
                    todo.append(stack)
            if len(seen) > min(4 * MOST_STACKS, self._work_left):
                raise OptionError(TOO_MANY_WAYS)
        self._work_left -= len(seen)
        return found

    def _push(self, place: int, under: int) -> int:
        number = self._stack_numbers.setdefault((place, under), len(self._stacks))
        if number == len(self._stacks):
            self._stacks.append((place, under))
        return number

    def _place(self, sequence: tuple[Element, ...]) -> int:
        """Append a sequence; its place."""
        place = len(self.elements)
        self.elements += (*sequence, None)
        return place


def _character_classes(
    elements: list[Element | None],
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"], list[bytes | None]]:
    """Group the characters that no set tells apart.

    Returns intervals by their first characters, the class of each, and the classes of the set at each place."""
    sets = list(dict.fromkeys(element for element in elements if isinstance(element, CharSet)))
    edges = {0}.union(*({low, high + 1} for found in sets for low, high in found.ranges))
    bounds = np.array(sorted(edge for edge in edges if edge <= LARGEST_CHARACTER), np.int64)
    if len(sets) * len(bounds) > MOST_SETS:
        raise OptionError(f"the grammar has {len(sets)} different sets of characters; make it smaller")
    table = np.zeros((len(sets), len(bounds)), bool)
    for row, found in zip(table, sets, strict=True):
        for low, high in found.ranges:
            row[np.searchsorted(bounds, low) : np.searchsorted(bounds, high, side="right")] = True
        row ^= found.negated
    numbers: dict[bytes, int] = {}
    columns = np.ascontiguousarray(table.T)
    classes = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in columns], np.int64)
    rows = np.frombuffer(b"".join(numbers), bool).reshape(len(numbers), len(sets)).T
    members = {found: row.tobytes() for found, row in zip(sets, np.ascontiguousarray(rows), strict=True)}
    return bounds, classes, [members.get(element) for element in elements]
