"""Rules of a grammar: character sets, token sets, references to other rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from minillama.errors import OptionError, quoted

LARGEST_CHARACTER = 0x10FFFF


@dataclass(frozen=True)
class CharSet:
    """One character of some ranges, ends included; `negated`: one outside of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def has(self, character: int) -> bool:
        """Whether the set has this code point."""
        return any(low <= character <= high for low, high in self.ranges) != self.negated

    def may_complete(self, value: int, missing: int) -> bool:
        """Whether the first bytes of a character may become one of the set.

        value: the bits so far. missing: bytes that are still to come. As in llama.cpp, a negated set wants all of the
        characters that it may become.
        """
        if missing == 1 and value < 2:
            return False
        low, high = value << 6 * missing, (value + 1 << 6 * missing) - 1
        if low == 0:
            low = {2: 1 << 11, 3: 1 << 16}.get(missing, 0)
        return any(first <= high and low <= last for first, last in self.ranges) != self.negated


@lru_cache(maxsize=4096)
def single(character: int) -> CharSet:
    """The set of one code point."""
    return CharSet(((character, character),))


ANY_CHARACTER = CharSet(((0, LARGEST_CHARACTER),))


@dataclass(frozen=True)
class TokenSet:
    """One token of the vocabulary; `negated`: any other one."""

    token: int
    negated: bool = False


@dataclass(frozen=True)
class RuleRef:
    """Another rule, by its number."""

    rule: int


Element = CharSet | TokenSet | RuleRef
Alternatives = Sequence[tuple[Element, ...]]


@dataclass(frozen=True)
class Rules:
    """Rules by number, and the one that a text begins with.

    Raises OptionError for left recursion: a rule that begins with itself has no end.
    """

    alternatives: Sequence[Alternatives]
    names: Sequence[str]
    start: int

    def __post_init__(self) -> None:
        rule = _left_recursive(self.alternatives)
        if rule is not None:
            raise OptionError(f"grammar rule {quoted(self.names[rule])} begins with itself; write it with * or +")


def _left_recursive(rules: Sequence[Alternatives]) -> int | None:
    """A rule that can begin with itself; depth-first search without recursion."""
    nullable = _nullable(rules)
    done: set[int] = set()
    for first in range(len(rules)):
        path, on_path = [(first, _beginnings(rules[first], nullable))], {first}
        while path and first not in done:
            rule, beginnings = path[-1]
            following = next(beginnings, None)
            if following is None:
                path.pop()
                on_path.discard(rule)
                done.add(rule)
            elif following in on_path:
                return following
            elif following not in done:
                path.append((following, _beginnings(rules[following], nullable)))
                on_path.add(following)
    return None


def _beginnings(alternatives: Alternatives, nullable: set[int]) -> Iterator[int]:
    """The rules that a rule can begin with."""
    for sequence in alternatives:
        for element in sequence:
            if not isinstance(element, RuleRef):
                break
            yield element.rule
            if element.rule not in nullable:
                break


def _nullable(rules: Sequence[Alternatives]) -> set[int]:
    """The rules that match the empty text."""
    users: dict[int, list[int]] = {}  # places in the lists below
    owners: list[int] = []  # the rule of each sequence of references
    missing: list[int] = []  # references in it that are not known to match the empty text
    for rule, alternatives in enumerate(rules):
        for sequence in alternatives:
            references = [element.rule for element in sequence if isinstance(element, RuleRef)]
            if len(references) == len(sequence):
                for used in references:
                    users.setdefault(used, []).append(len(owners))
                owners.append(rule)
                missing.append(len(references))
    found: set[int] = set()
    todo = [owner for owner, count in zip(owners, missing, strict=True) if not count]
    while todo:
        rule = todo.pop()
        if rule in found:
            continue
        found.add(rule)
        for place in users.get(rule, ()):
            missing[place] -= 1
            if not missing[place]:
                todo.append(owners[place])
    return found
