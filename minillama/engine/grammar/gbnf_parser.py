"""Parser of GBNF, llama.cpp's notation for grammars (its grammars/README.md).

A repetition becomes copies and optional rules, as in llama.cpp: `x{1,3}` is `x r2`, `r2 ::= x r1 |`, `r1 ::= x |`.
"""

import re
from collections.abc import Callable

from minillama.engine.grammar.rules import ANY_CHARACTER, CharSet, Element, RuleRef, Rules, TokenSet, single
from minillama.errors import OptionError, quoted

MOST_REPETITIONS = 2000  # llama.cpp's limit
MOST_BYTES = 1 << 20  # of a grammar's text
MOST_COPIES = 100_000  # characters, sets and references that repetitions make
DEEPEST = 50  # parentheses in each other

SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
NAME = re.compile(r"[a-zA-Z0-9-]+")
NUMBER = re.compile(r"[0-9]+")
PLAIN = re.compile(r'[^"\\]+')
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([trn\\\"\[\]-]))")
ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}
TOKEN = re.compile(r"<\[([0-9]{1,9})\]>|(<[^>]*>)")
REPETITIONS = {"*": (0, None), "+": (1, None), "?": (0, 1)}

TokenId = Callable[[str], int | None]  # the one token of a text, None if it is not one


def parse_gbnf(text: str, token_id: TokenId) -> Rules:
    """Parse a grammar; raises OptionError with line and column.

    token_id: for elements such as `<think>`.
    """
    if not isinstance(text, str):
        raise OptionError(f"grammar is of type {type(text).__name__}; expected a text in GBNF")
    if len(text) > MOST_BYTES:
        raise OptionError(f"the grammar has {len(text)} characters; at most {MOST_BYTES} are allowed")
    return _Parser(text, token_id).parse()


class _Parser:
    """A recursive descent over the text."""

    def __init__(self, text: str, token_id: TokenId) -> None:
        self._text, self._place, self._token_id = text, 0, token_id
        self._numbers: dict[str, int] = {}
        self._rules: dict[int, list[tuple[Element, ...]]] = {}
        self._depth = self._copies = 0

    def parse(self) -> Rules:
        self._skip(SPACE_AND_LINES)
        while self._place < len(self._text):
            self._rule()
        names = list(self._numbers)
        for name, number in self._numbers.items():
            if number not in self._rules:
                raise OptionError(f"grammar rule {quoted(name)} is used but not defined; add {name} ::= ...")
        if "root" not in self._numbers:
            raise OptionError("the grammar has no rule root; add root ::= ..., where a text begins")
        return Rules([self._rules[number] for number in range(len(names))], names, self._numbers["root"])

    def _rule(self) -> None:
        name = self._expect(NAME, "the name of a rule")
        number = self._number(name)
        self._skip(SPACE)
        if not self._take("::="):
            raise self._error("expected ::=")
        self._skip(SPACE_AND_LINES)
        self._rules[number] = self._alternatives(name, nested=False)
        if self._place < len(self._text) and self._text[self._place] not in "\r\n":
            raise self._error("expected an element, | or the end of the line")
        self._skip(SPACE_AND_LINES)

    def _alternatives(self, name: str, nested: bool) -> list[tuple[Element, ...]]:
        found = [self._sequence(name, nested)]
        while self._take("|"):
            self._skip(SPACE_AND_LINES)
            found.append(self._sequence(name, nested))
        return found

    def _sequence(self, name: str, nested: bool) -> tuple[Element, ...]:
        found: list[Element] = []
        last, size = 0, 1  # where the last symbol begins, and the number of rules in it
        while self._place < len(self._text):
            before = len(self._numbers)
            times = self._repetition(nested)
            if times is not None:
                if last == len(found):
                    raise self._error("nothing to repeat")
                size *= self._check_size(size, len(found) - last, *times)
                found[last:] = self._repeat(tuple(found[last:]), *times, name)
                continue
            symbol = self._symbol(name)
            if symbol is None:
                break
            self._skip(SPACE_AND_LINES if nested else SPACE)
            last, size = len(found), 1
            if self._opened_group:
                size = max(1, len(self._numbers) - before)
            found += symbol
        return tuple(found)

    def _symbol(self, name: str) -> tuple[Element, ...] | None:
        """The next literal, set, token, reference or group."""
        character = self._text[self._place]
        self._opened_group = character == "("
        if character == '"':
            return self._literal()
        if character == "[":
            return (self._set(),)
        if character in "<!":
            return (self._token(),)
        if character == ".":
            self._place += 1
            return (ANY_CHARACTER,)
        if character == "(":
            return (self._group(name),)
        if NAME.match(self._text, self._place):
            return (RuleRef(self._number(self._expect(NAME, "a name"))),)
        return None

    def _group(self, name: str) -> Element:
        self._place += 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(f"more than {DEEPEST} parentheses in each other")
        self._skip(SPACE_AND_LINES)
        number = self._new_number(name)
        self._rules[number] = self._alternatives(name, nested=True)
        if not self._take(")"):
            raise self._error("expected )")
        self._depth -= 1
        self._opened_group = True
        return RuleRef(number)

    def _literal(self) -> tuple[Element, ...]:
        self._place += 1
        found: list[Element] = []
        while not self._take('"'):
            plain = PLAIN.match(self._text, self._place)
            if plain is None:
                found.append(single(self._character()))
            else:
                self._place = plain.end()
                found += [single(ord(character)) for character in plain[0]]
        return tuple(found)

    def _set(self) -> Element:
        self._place += 1
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            low = high = self._character()
            if self._text.startswith("-", self._place) and not self._text.startswith("-]", self._place):
                self._place += 1
                high = self._character()
            ranges.append((low, high))
        if not ranges:
            raise self._error("a set of no characters")
        return CharSet(tuple(ranges), negated)

    def _token(self) -> Element:
        negated = self._take("!")
        match = TOKEN.match(self._text, self._place)
        if match is None:
            raise self._error("expected a token, <text> or <[id]>")
        token = int(match[1]) if match[1] else self._token_id(match[2])
        if token is None:
            raise self._error(f"{quoted(match[2])} is not one token of this model")
        self._place = match.end()
        return TokenSet(token, negated)

    def _character(self) -> int:
        """The next character of a literal or a set, with escapes."""
        if self._place >= len(self._text):
            raise self._error("unexpected end")
        character = self._text[self._place]
        if character != "\\":
            self._place += 1
            return ord(character)
        match = ESCAPE.match(self._text, self._place)
        if match is None:
            raise self._error(f"unknown escape {quoted(self._text[self._place : self._place + 2])}")
        self._place = match.end()
        if match[4]:
            return ord(ESCAPED.get(match[4], match[4]))
        return int(match[1] or match[2] or match[3], 16)

    def _repetition(self, nested: bool) -> tuple[int, int | None] | None:
        """The least and the greatest number of times, if a repetition follows."""
        space = SPACE_AND_LINES if nested else SPACE
        character = self._text[self._place]
        if character in REPETITIONS:
            self._place += 1
            self._skip(space)
            return REPETITIONS[character]
        if not self._take("{"):
            return None
        self._skip(space)
        least = most = int(self._expect(NUMBER, "a number"))
        self._skip(space)
        if self._take(","):
            self._skip(space)
            match = NUMBER.match(self._text, self._place)
            most = int(self._expect(NUMBER, "a number")) if match else None
            self._skip(space)
        if not self._take("}"):
            raise self._error("expected }")
        self._skip(space)
        if least > MOST_REPETITIONS:
            raise self._error(f"{least} repetitions; at most {MOST_REPETITIONS} are allowed")
        if most is not None and most < least:
            raise self._error(f"from {least} to {most} repetitions; the second is to be the larger one")
        return least, None if most is None or most > MOST_REPETITIONS else most

    def _check_size(self, size: int, length: int, least: int, most: int | None) -> int:
        """The number of copies, if they are not too many.

        size: rules in one copy. length: its elements.
        """
        copies = most or least or 1
        if size * copies > MOST_REPETITIONS:
            raise self._error(f"repetitions in repetitions, {size * copies}; at most {MOST_REPETITIONS} are allowed")
        self._copies += length * copies
        if self._copies > MOST_COPIES:
            raise self._error(f"repetitions make more than {MOST_COPIES} elements; repeat shorter parts")
        return copies

    def _repeat(self, symbol: tuple[Element, ...], least: int, most: int | None, name: str) -> tuple[Element, ...]:
        copies = symbol * least
        if most is None:
            number = self._new_number(name)
            self._rules[number] = [(*symbol, RuleRef(number)), ()]
            return (*copies, RuleRef(number))
        rest: tuple[Element, ...] = ()
        for _ in range(most - least):
            number = self._new_number(name)
            self._rules[number] = [symbol + rest, ()]
            rest = (RuleRef(number),)
        return copies + rest

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _new_number(self, name: str) -> int:
        """A number for a rule that the text does not name."""
        return self._number(f"{name}_{len(self._numbers)}")

    def _skip(self, space: re.Pattern[str]) -> None:
        match = space.match(self._text, self._place)
        assert match is not None
        self._place = match.end()

    def _take(self, mark: str) -> bool:
        """Step over a mark if it follows; whether it did."""
        follows = self._text.startswith(mark, self._place)
        self._place += len(mark) * follows
        return follows

    def _expect(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._place)
        if match is None:
            raise self._error(f"expected {what}")
        self._place = match.end()
        if len(match[0]) > 200:
            raise self._error(f"{what} of {len(match[0])} characters")
        return match[0]

    def _error(self, problem: str) -> OptionError:
        before = self._text[: self._place]
        line, column = before.count("\n") + 1, self._place - (before.rfind("\n") + 1) + 1
        rest = quoted(self._text[self._place : self._place + 20]) if self._place < len(self._text) else "the end"
        return OptionError(f"the grammar cannot be parsed at line {line}, column {column} ({rest}): {problem}")
