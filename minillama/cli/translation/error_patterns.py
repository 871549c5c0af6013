"""Translate a message with values by its template, such as `no command {words}; the commands are: {names}`.

A message is recognised by its text, so no code that raises it changes. Of several readings, the one counts whose
constant characters include those of every other; if there is none, the message stays in English. Values stay as they
are, unless a value is itself a part of a message. Fields that hold a message of their own (NESTED) are translated too.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from string import Formatter
from typing import NamedTuple

NESTED = {"message", "error", "reason", "strerror"}
MOST_READINGS = 20  # of one template; a text with more is ambiguous
MOST_LEVELS = 4  # of messages inside messages

Spans = dict[str, tuple[int, int]]  # field: start and end of its value in the text


class Reading(NamedTuple):
    """A translation of a text, and a bit for each character outside of values."""

    translation: str
    constant: int


class Template:
    """A message with named fields, and its translation."""

    def __init__(self, text: str, translation: str) -> None:
        self.translation = translation
        parts = [(literal, field) for literal, field, _, _ in Formatter().parse(text)]
        self.literals = [literal for literal, _ in parts]
        self.fields = [field for _, field in parts if field is not None]
        if len(self.fields) == len(self.literals):
            self.literals.append("")  # a field at the end

    @property
    def is_bare(self) -> bool:
        """True if only fields have words: such a template fits almost any text.

        Its translation is the template itself, and its colon does not count: a value may have one.
        """
        return not any(character.isalpha() for literal in self.literals for character in literal)

    def spans(self, text: str) -> Iterator[Spans]:
        """All ways to read a text as this message."""
        first, last = self.literals[0], self.literals[-1]
        if not self.fields:
            if text == first:
                yield {}
        elif text.startswith(first) and text.endswith(last) and all(literal in text for literal in self.literals):
            end = len(text) - len(last)
            if len(first) <= end:
                yield from self._rest(text, len(first), end, 0, {})

    def _rest(self, text: str, start: int, end: int, place: int, found: Spans) -> Iterator[Spans]:
        """The ways to read the fields from `place` on in a part of the text."""
        field, is_last = self.fields[place], place == len(self.fields) - 1
        literal = self.literals[place + 1]
        stop = end if is_last else text.find(literal, start, end)
        while stop >= 0:
            if field not in found or text[slice(*found[field])] == text[start:stop]:  # a repeated field is equal
                here = {**found, field: (start, stop)} if field not in found else found
                if is_last:
                    yield here
                else:
                    yield from self._rest(text, stop + len(literal), end, place + 1, here)
            stop = -1 if is_last else text.find(literal, stop + 1, end)


class Patterns:
    """The templates of a language."""

    def __init__(self, catalogue: Mapping[str, str]) -> None:
        self._catalogue = catalogue

    @cached_property
    def _templates(self) -> list[Template]:
        return [Template(text, translation) for text, translation in self._catalogue.items()]

    def translated(self, text: str) -> str:
        """The translation of a message; the message itself if it is unknown or ambiguous."""
        best = self._best(text, MOST_LEVELS, {})
        return text if best is None else best.translation

    def _best(self, text: str, levels: int, known: dict[tuple[str, int], Reading | None]) -> Reading | None:
        """The reading of a text that includes all others; `known` keeps those of earlier calls."""
        if (text, levels) not in known:
            found = self._readings(text, levels, known) if levels else []
            best = max(found, key=lambda reading: reading.constant.bit_count(), default=None)
            is_clear = best is not None and all(
                not other.constant & ~best.constant
                and (other.constant != best.constant or other.translation == best.translation)
                for other in found
            )
            known[text, levels] = best if is_clear else None
        return known[text, levels]

    def _readings(self, text: str, levels: int, known: dict[tuple[str, int], Reading | None]) -> list[Reading]:
        found = []
        for template in self._templates:
            ways = list(islice(template.spans(text), MOST_READINGS + 1))
            if len(ways) > MOST_READINGS:
                return []
            for spans in ways:
                values, inside, outside, is_whole = {}, 0, (1 << len(text)) - 1, True
                for field, (start, stop) in spans.items():
                    inner = self._best(text[start:stop], levels - 1, known) if field in NESTED else None
                    values[field] = text[start:stop] if inner is None else inner.translation
                    is_whole &= inner is not None or field not in NESTED
                    inside |= inner.constant << start if inner is not None else 0
                    outside &= ~(((1 << (stop - start)) - 1) << start)
                if is_whole or not template.is_bare:
                    constant = inside if template.is_bare else inside | outside
                    found.append(Reading(template.translation.format(**values), constant))
        return found
