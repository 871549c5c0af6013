"""Regular expressions of JSON schemas as GBNF expressions over the characters of a JSON string.

A character that JSON has to escape is written as its escape, so that what fits is always valid JSON.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from minillama.engine.grammar.gbnf_parser import MOST_REPETITIONS
from minillama.engine.grammar.json_schema.gbnf_text import set_member
from minillama.engine.grammar.json_schema.keywords import failure
from minillama.engine.grammar.rules import LARGEST_CHARACTER
from minillama.errors import quoted

Ranges = list[tuple[int, int]]

DIGITS: Ranges = [(48, 57)]
WORD: Ranges = [(48, 57), (65, 90), (95, 95), (97, 122)]
SPACES: Ranges = [(9, 13), (32, 32), (0xA0, 0xA0), (0x2028, 0x2029), (0xFEFF, 0xFEFF)]
LINE_ENDS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]
CLASSES = {"d": (DIGITS, False), "w": (WORD, False), "s": (SPACES, False),
           "D": (DIGITS, True), "W": (WORD, True), "S": (SPACES, True)}  # fmt: skip
CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
JSON_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
RAW: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, LARGEST_CHARACTER)]  # what JSON strings hold as it is
TEXT: Ranges = [(1, 0x3B), (0x3D, LARGEST_CHARACTER)]  # all but NUL and <
DEEPEST = 50  # groups in each other
LONGEST = 20_000  # characters of a pattern
NUMBERS = frozenset(map(str, range(MOST_REPETITIONS + 1)))


def string_pattern(pattern: str, path: str) -> str:
    """GBNF of the JSON strings, with quotation marks, that have a pattern.

    Raises OptionError for a pattern that has no grammar (look-around, back references, anchors inside).
    """
    any_character = f"({_gbnf_set(RAW)} | {_escapes([(0, LARGEST_CHARACTER)])})"
    return f'"\\"" {_pattern(pattern, path, _json_characters, any_character)} "\\""'


def text_pattern(pattern: str, path: str) -> str:
    """GBNF of the texts that have a pattern, without `<`, which may begin a tag.

    Raises as `string_pattern`.
    """
    return _pattern(pattern, path, _text_characters, _gbnf_set(TEXT))


def _pattern(pattern: str, path: str, write: Callable[[Ranges], str], any_character: str) -> str:
    """write: GBNF of one of some characters."""
    if len(pattern) > LONGEST:
        raise failure(path, f"a pattern of {len(pattern)} characters; at most {LONGEST} are supported")
    parser = _Parser(pattern, path, write)
    anchored = parser.take("^")
    body = parser.alternatives()
    if not parser.is_over():
        raise parser.error("unbalanced )")
    if len(parser.top) > 1 and (anchored or parser.ended):
        raise parser.error("an anchor of one alternative only; put the alternatives into (...)")
    any_text = f"{any_character}*"
    parts = ["" if anchored else any_text, f"({body})", "" if parser.ended else any_text]
    return " ".join(filter(None, parts))


class _Parser:
    def __init__(self, pattern: str, path: str, write: Callable[[Ranges], str]) -> None:
        self._text, self._path, self._place, self._depth, self._write = pattern, path, 0, 0, write
        self.ended = False  # by $
        self.top: list[str] = []  # the outer alternatives

    def is_over(self) -> bool:
        return self._place >= len(self._text)

    def take(self, mark: str) -> bool:
        follows = self._text.startswith(mark, self._place)
        self._place += len(mark) * follows
        return follows

    def error(self, problem: str) -> Exception:
        return failure(self._path, f"pattern {quoted(self._text)}: {problem}")

    def alternatives(self) -> str:
        found = [self._sequence()]
        while self.take("|"):
            found.append(self._sequence())
        if not self._depth:
            self.top = found
        return " | ".join(found)

    def _sequence(self) -> str:
        found: list[str] = []
        while not self.is_over() and self._text[self._place] not in "|)":
            if not self._depth and self._place == len(self._text) - 1 and self._text[self._place] == "$":
                self._place += 1
                self.ended = True
                break
            found.append(self._atom() + self._repetition())
        return " ".join(found) or '""'

    def _atom(self) -> str:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._set()
        if character == ".":
            return self._write(_complement(LINE_ENDS))
        if character == "\\":
            return self._write(self._escape())
        if character in "^$":
            raise self.error("an anchor inside the pattern is not supported")
        if character in "*+?":
            raise self.error("nothing to repeat")
        if character in "{}":
            raise self.error(f"write \\{character} for the character itself")
        return self._write([(ord(character), ord(character))])

    def _group(self) -> str:
        if self.take("?") and not self.take(":"):
            raise self.error("look-around, names and flags of groups are not supported")
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} groups in each other")
        body = self.alternatives()
        self._depth -= 1
        if not self.take(")"):
            raise self.error("unbalanced (")
        return f"({body})"

    def _set(self) -> str:
        negated = self.take("^")
        found: Ranges = []
        while not self.take("]"):
            low = self._set_member()
            if self.take("-") and not self._text.startswith("]", self._place):
                high = self._set_member()
                if len(low) > 1 or len(high) > 1 or low[0][0] != low[0][1] or low[0][0] > high[0][0]:
                    raise self.error("a range of characters that cannot be read")
                low = [(low[0][0], high[0][1])]
            elif self._text[self._place - 1] == "-":
                low = [*low, (45, 45)]
            found += low
        ranges = _complement(found) if negated else found
        if not ranges:
            raise self.error("a set of no characters")
        return self._write(ranges)

    def _set_member(self) -> Ranges:
        character = self._next()
        return self._escape() if character == "\\" else [(ord(character), ord(character))]

    def _escape(self) -> Ranges:
        name = self._next()
        if name in CLASSES:
            ranges, negated = CLASSES[name]
            return _complement(ranges) if negated else ranges
        if name in CONTROLS:
            return [(CONTROLS[name], CONTROLS[name])]
        length = {"x": 2, "u": 4}.get(name)
        if length is not None:
            digits, self._place = self._text[self._place : self._place + length], self._place + length
            try:
                code = int(digits, 16)
            except ValueError:
                raise self.error(f"\\{name} wants {length} hexadecimal digits") from None
            return [(code, code)]
        if name.isalnum():
            raise self.error(f"\\{name} is not supported")
        return [(ord(name), ord(name))]

    def _repetition(self) -> str:
        mark = next(filter(self.take, "*+?{"), "")
        times = self._numbers() if mark == "{" else mark
        self.take("?")  # a lazy repetition matches the same texts
        return times

    def _numbers(self) -> str:
        """The rest of {1,3}, as GBNF has it."""
        end = self._text.find("}", self._place)
        inside, closed = self._text[self._place : end], end >= 0
        least, comma, most = inside.partition(",")
        if not closed or not inside.strip(",") or not all(not part or part in NUMBERS for part in (least, most)):
            raise self.error(f"{{ wants numbers of at most {MOST_REPETITIONS}, as in {{1,3}}")
        self._place += len(inside) + 1
        return f"{{{least or 0}{comma}{most}}}"

    def _next(self) -> str:
        if self._place >= len(self._text):
            raise self.error("unexpected end")
        self._place += 1
        return self._text[self._place - 1]


def _text_characters(ranges: Ranges) -> str:
    """One of some characters, as they are."""
    inside = _intersection(ranges, TEXT)
    return _gbnf_set(inside) if inside else "[]"


def _json_characters(ranges: Ranges) -> str:
    return _json_expression(tuple(ranges))


@lru_cache(maxsize=1024)
def _json_expression(ranges: tuple[tuple[int, int], ...]) -> str:
    """One of some characters, as a JSON string holds them."""
    raw = _intersection(ranges, RAW)
    parts = [_gbnf_set(raw)] if raw else []
    if escapes := _escapes(ranges):
        parts.append(escapes)
    if not parts:
        return "[]"
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def _escapes(ranges: Sequence[tuple[int, int]]) -> str:
    """The escapes of those characters that JSON has to escape."""
    escaped = [JSON_ESCAPES.get(chr(code), f"\\u{code:04x}") for code in (*range(32), 34, 92, 127)]
    codes = [*range(32), 34, 92, 127]
    chosen = [text for code, text in zip(codes, escaped, strict=True) if any(a <= code <= b for a, b in ranges)]
    return " | ".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in chosen)


def _gbnf_set(ranges: Ranges) -> str:
    return "[" + "".join(set_member(a) if a == b else f"{set_member(a)}-{set_member(b)}" for a, b in ranges) + "]"


def _complement(ranges: Ranges) -> Ranges:
    found, first = [], 0
    for low, high in sorted(ranges):
        if low > first:
            found.append((first, low - 1))
        first = max(first, high + 1)
    return [*found, (first, LARGEST_CHARACTER)] if first <= LARGEST_CHARACTER else found


def _intersection(ranges: Sequence[tuple[int, int]], others: Ranges) -> Ranges:
    return [(max(a, c), min(b, d)) for a, b in ranges for c, d in others if max(a, c) <= min(b, d)]
