"""Notations of values: JSON, and Gemma 4's, which has JSON's types without its quotes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minillama.engine.grammar.json_schema.gbnf_text import json_text, literal
from minillama.engine.grammar.json_schema.keywords import failure
from minillama.engine.grammar.json_schema.primitive_rules import PRIMITIVE_RULES, PrimitiveRules
from minillama.engine.grammar.json_schema.string_patterns import string_pattern, text_pattern
from minillama.engine.grammar.text_until import until_rules
from minillama.errors import quoted
from minillama.tokenizer.chat.tool_calls.gemma_calls import QUOTE

PLAIN_KEY = re.compile(r"[\w.$@/-]+")


@dataclass(frozen=True)
class Notation:
    """A way to write values, as expressions of GBNF.

    quote: around a string. primitives: see `PRIMITIVE_RULES`; any_key: the one of any key of an object.
    constant: of a value; key: of the key of a property; pattern: of a string with a regular expression. They also take
    the place in the schema, and raise OptionError for what cannot be written.
    has_other_keys: whether an object may have more properties than those with a schema.
    """

    quote: str
    primitives: PrimitiveRules
    any_key: str
    constant: Callable[[object, str], str]
    key: Callable[[str, str], str]
    pattern: Callable[[str, str], str]
    has_other_keys: bool = True


JSON = Notation(
    quote='"\\""',
    primitives=PRIMITIVE_RULES,
    any_key="string",
    constant=lambda value, path: literal(json_text(value)),
    key=lambda name, path: literal(json_text(name)),
    pattern=string_pattern,
)


def _gemma_text(value: object, path: str) -> str:
    """A value in Gemma's notation."""
    if isinstance(value, str):
        if "<" in value:
            raise failure(path, f"the model's notation cannot write {quoted(value)}; remove it")
        return QUOTE + value + QUOTE
    if isinstance(value, list):
        return f"[{','.join(_gemma_text(item, path) for item in value)}]"
    if isinstance(value, Mapping):
        members = (f"{_plain_key(key, path)}:{_gemma_text(item, path)}" for key, item in value.items())
        return "{" + ",".join(members) + "}"
    return json_text(value)


def _plain_key(name: str, path: str) -> str:
    """A key that needs no quotes."""
    if not PLAIN_KEY.fullmatch(name):
        raise failure(path, f"the model's notation cannot write the property {quoted(name)}; rename it")
    return name


def _gemma_rules() -> PrimitiveRules:
    quote, until = literal(QUOTE), until_rules("gemma-text", (QUOTE,))
    rules = {name: (rule.replace(JSON.quote, quote), uses) for name, (rule, uses) in PRIMITIVE_RULES.items()}
    rules |= {name: (rule, tuple(other for other in until if other != name)) for name, rule in until.items()}
    member = 'gemma-key ":" space value'
    return rules | {
        "char": ("[^<]", ()),
        "gemma-key": ("[a-zA-Z0-9_-]{1,64}", ()),
        "string": (f"{quote} gemma-text", ("gemma-text",)),
        "object": (f'"{{" space ( {member} ("," space {member})* )? space "}}"', ("gemma-key", "value")),
    }


GEMMA = Notation(
    quote=literal(QUOTE),
    primitives=_gemma_rules(),
    any_key="gemma-key",
    constant=lambda value, path: literal(_gemma_text(value, path)),
    key=lambda name, path: literal(_plain_key(name, path)),
    pattern=lambda pattern, path: f"{literal(QUOTE)} {text_pattern(pattern, path)} {literal(QUOTE)}",
    has_other_keys=False,
)
