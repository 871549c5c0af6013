"""The limits of a JSON text: a pattern, a format, or a length."""

from typing import NamedTuple

from minillama.engine.grammar.json_schema.keywords import Schema, count, failure, text
from minillama.engine.grammar.json_schema.primitive_rules import FORMATS


class StringLimits(NamedTuple):
    """At most one of a pattern, a format, and a length in characters."""

    pattern: str | None
    rule: str | None  # of the format: a name in PRIMITIVE_RULES
    least: int
    most: int | None

    @property
    def has_length(self) -> bool:
        """Whether the length is limited."""
        return bool(self.least) or self.most is not None


def string_limits(schema: Schema, path: str) -> StringLimits:
    """The limits of a string's schema; raises OptionError where they cannot be kept together."""
    pattern, form = text(schema, "pattern", path), text(schema, "format", path)
    found = StringLimits(
        pattern, FORMATS.get(str(form)), count(schema, "minLength", path) or 0, count(schema, "maxLength", path)
    )
    if (pattern is not None) + (found.rule is not None) + found.has_length > 1:
        raise failure(path, "only one of pattern, format, and minLength with maxLength is supported; remove others")
    if found.most is not None and found.most < found.least:
        raise failure(path, f"minLength is {found.least}, more than maxLength, {found.most}")
    return found
