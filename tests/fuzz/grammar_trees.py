"""Random grammars as trees, their text in GBNF, and a matcher that tries everything."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

CHARACTERS = 'abcexy019"\\{}[],: -.\né日😀'
NAMES = ("root", "x", "y", "long-name-2")
ESCAPES = {"\n": "\\n", '"': '\\"', "\\": "\\\\", "[": "\\[", "]": "\\]", "-": "\\-", "^": "\\x5E"}


@dataclass(frozen=True)
class Characters:
    """One of some characters, or one that is none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False

    def has(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.negated


@dataclass(frozen=True)
class Sequence:
    """Parts one after another; the characters of a literal are such parts."""

    parts: "tuple[Node, ...]"
    is_literal: bool = False


@dataclass(frozen=True)
class Choice:
    parts: "tuple[Node, ...]"


@dataclass(frozen=True)
class Repeated:
    """A part from `least` to `most` times; None: without a limit."""

    part: "Node"
    least: int
    most: int | None


@dataclass(frozen=True)
class Named:
    """Another rule."""

    name: str


Node = Characters | Sequence | Choice | Repeated | Named
Rules = Mapping[str, Node]
ANY = Characters((("\0", "\U0010ffff"),))


class LeftRecursion(Exception):
    """A part begins with itself."""


class Matcher:
    """A grammar and one text. is_complete: the text fits. goes_on: one more character may fit."""

    def __init__(self, rules: Rules, text: str) -> None:
        self._rules, self._text = rules, text
        self._known: dict[tuple[int, int], set[int] | None] = {}
        self.goes_on = False
        self.is_complete = len(text) in self.ends(rules["root"], 0)

    def ends(self, node: Node, place: int) -> set[int]:
        """The places where a part that begins at a place can end."""
        key = id(node), place
        if key not in self._known:
            self._known[key] = None
            self._known[key] = self._find(node, place)
        found = self._known[key]
        if found is None:
            raise LeftRecursion
        return found

    def _find(self, node: Node, place: int) -> set[int]:
        match node:
            case Characters():
                self.goes_on |= place == len(self._text)
                return {place + 1} if place < len(self._text) and node.has(self._text[place]) else set()
            case Sequence(parts):
                places = {place}
                for part in parts:
                    places = self._after(part, places)
                return places
            case Choice(parts):
                return set().union(*(self.ends(part, place) for part in parts))
            case Named(name):
                return self.ends(self._rules[name], place)
        return self._repeat(node, {place})

    def _repeat(self, node: Repeated, places: set[int]) -> set[int]:
        for _ in range(node.least):
            places = self._after(node.part, places)
        found = set(places)
        more = len(self._text) + 1 if node.most is None else node.most - node.least
        for _ in range(more):
            if node.most is None and any(place in self.ends(node.part, place) for place in places):
                raise LeftRecursion
            places = self._after(node.part, places) - found
            found |= places
        return found

    def _after(self, part: Node, places: set[int]) -> set[int]:
        return set().union(*(self.ends(part, place) for place in places))


def is_left_recursive(rules: Rules) -> bool:
    """Whether some part of the rules can begin with itself."""
    try:
        matcher = Matcher(rules, "")
        for rule in rules.values():
            for node in _nodes(rule):
                matcher.ends(node, 0)
    except LeftRecursion:
        return True
    return False


def has_negated_set(rules: Rules) -> bool:
    """Whether a set is negated."""
    return any(isinstance(node, Characters) and node.negated for rule in rules.values() for node in _nodes(rule))


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    parts = node.parts if isinstance(node, Sequence | Choice) else (node.part,) if isinstance(node, Repeated) else ()
    for part in parts:
        yield from _nodes(part)


def random_rules(rng: random.Random) -> dict[str, Node]:
    """Rules of random parts; most references are to later rules, or stand after a character."""
    names = NAMES[: rng.randrange(1, len(NAMES) + 1)]
    return {name: _choice(rng, names, place, 0) for place, name in enumerate(names)}


def _choice(rng: random.Random, names: tuple[str, ...], place: int, depth: int) -> Node:
    return Choice(tuple(_sequence(rng, names, place, depth) for _ in range(rng.choice((1, 1, 2, 3)))))


def _sequence(rng: random.Random, names: tuple[str, ...], place: int, depth: int) -> Node:
    return Sequence(tuple(_item(rng, names, place, depth) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))))


def _item(rng: random.Random, names: tuple[str, ...], place: int, depth: int) -> Node:
    choice = rng.randrange(12)
    if choice < 4:
        node: Node = _literal(rng)
    elif choice < 7:
        node = _characters(rng)
    elif choice == 7 and depth == 0:  # any rule, after a character
        node = Choice((Sequence((_literal(rng), Named(rng.choice(names)))),))
    elif choice < 10 and place + 1 < len(names):
        node = Named(rng.choice(names[place + 1 :]))
    elif choice == 10 and rng.random() < 0.1:
        node = Named(rng.choice(names))  # perhaps itself
    elif depth < 2:
        node = _choice(rng, names, place, depth + 1)
    else:
        node = ANY
    if rng.random() < 0.7:
        return node
    return Repeated(node, *rng.choice(((0, 1), (0, None), (1, None), (2, 2), (1, 3), (0, 2), (2, None), (0, 0))))


def _literal(rng: random.Random) -> Node:
    size = rng.choice((1, 1, 1, 2, 3))
    return Sequence(tuple(Characters(((c, c),)) for c in rng.choices(CHARACTERS, k=size)), is_literal=True)


def _characters(rng: random.Random) -> Node:
    if rng.random() < 0.2:
        return ANY
    ranges = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        low, high = sorted(rng.choices(CHARACTERS, k=2))
        ranges.append((low, high if rng.random() < 0.5 else low))
    return Characters(tuple(ranges), rng.random() < 0.25)


def gbnf_of(rng: random.Random, rules: Rules) -> str:
    """The text of a grammar, with random spaces, comments and escapes."""
    texts = [f"{name}{_space(rng)}::= {_text(rng, node, nested=False)}" for name, node in rules.items()]
    rng.shuffle(texts)
    return "\n".join(texts) + rng.choice(("", "\n", "\n\n", " # the end"))


def _text(rng: random.Random, node: Node, nested: bool) -> str:
    match node:
        case Choice(parts):
            return f"{_space(rng, nested)}|{_space(rng, True)}".join(_text(rng, part, nested) for part in parts)
        case Sequence(parts, True):
            return '"' + "".join(_escaped(rng, part.ranges[0][0], '"\\') for part in parts) + '"'
        case Sequence(parts):
            return _space(rng, nested).join([_symbol(rng, part, nested) for part in parts]) or '""'
    return _symbol(rng, node, nested)


def _symbol(rng: random.Random, node: Node, nested: bool) -> str:
    match node:
        case Named(name):
            return name
        case Repeated(part, least, most):
            short = {(0, 1): "?", (0, None): "*", (1, None): "+"}.get((least, most))
            times = f"{{{least}}}" if least == most else f"{{{least},{'' if most is None else most}}}"
            times = short if short and rng.random() < 0.7 else times
            return _symbol(rng, part, nested) + rng.choice(("", " ")) + times
        case Characters(ranges, negated):
            if node == ANY and rng.random() < 0.8:
                return "."
            members = [
                _escaped(rng, low, "\\[]-^") + (f"-{_escaped(rng, high, '[]-^' + chr(92))}" if low != high else "")
                for low, high in ranges
            ]
            return f"[{'^' * negated}{''.join(members)}]"
        case Sequence(_, True):
            return _text(rng, node, nested)
    return f"({_space(rng, True)}{_text(rng, node, nested=True)}{_space(rng, True)})"


def _escaped(rng: random.Random, character: str, special: str) -> str:
    code = ord(character)
    if rng.random() < 0.1 or character == "\0":
        return f"\\U{code:08X}" if code > 0xFFFF else f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02X}"
    return ESCAPES.get(character, character) if character in special or character == "\n" else character


def _space(rng: random.Random, nested: bool = False) -> str:
    """One or more blanks; in parentheses also lines and comments."""
    return rng.choice((" ", " ", " ", "  ", "\t", *(("\n  ", ' # a comment | ) "\n') if nested else ())))
