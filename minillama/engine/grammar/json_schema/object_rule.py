"""The rule of an object.

Required properties come in order, then any of the others in order, then additional ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from minillama.engine.grammar.json_schema.gbnf_text import json_text, set_member
from minillama.engine.grammar.json_schema.keywords import failure
from minillama.engine.grammar.json_schema.notation import Notation

OTHERS = None  # stands for the properties that have no name in the schema
LONGEST_NAME = 200  # of a property in a schema that allows others
END = ""  # in a tree of names: one ends here


@dataclass(frozen=True)
class ObjectProperty:
    """A property that the schema describes."""

    name: str
    schema: object
    path: str
    required: bool


@runtime_checkable
class RuleWriter(Protocol):
    """Writer of the rules of the parts."""

    notation: Notation

    def visit(self, schema: object, name: str, path: str) -> str: ...

    def add(self, name: str, rule: str) -> str: ...

    def primitive(self, kind: str, name: str | None = None) -> str: ...


def object_rule(writer: RuleWriter, properties: Sequence[ObjectProperty], others: object, name: str, path: str) -> str:
    """The rule of an object with these properties.

    others: the schema of all other properties, True for any, False for none.
    """
    prefix = f"{name}-" if name else ""
    pairs: dict[str | None, str] = {}
    for one in properties:
        # "" names the rule of the whole schema, which a property with an empty name must not replace
        value = writer.visit(one.schema, prefix + one.name or "property", one.path)
        key = writer.notation.key(one.name, one.path)
        pairs[one.name] = writer.add(f"{prefix}{one.name}-kv", f'{key} space ":" space {value}')
    required = [one.name for one in properties if one.required]
    optional: list[str | None] = [one.name for one in properties if not one.required]
    if others is not False and (writer.notation.has_other_keys or not properties):
        sub = f"{prefix}additional"
        here = f"{path}/additionalProperties"
        value = writer.primitive("value") if others in (True, {}) else writer.visit(others, f"{sub}-value", here)
        if any(len(one.name) > LONGEST_NAME for one in properties):
            raise failure(path, f"a property has a name of more than {LONGEST_NAME} characters")
        names = [one.name for one in properties]
        key = (
            writer.add(f"{sub}-k", other_strings(writer, names, f"{sub}-k"))
            if names
            else writer.primitive(writer.notation.any_key)
        )
        pairs[OTHERS] = writer.add(f"{sub}-kv", f'{key} ":" space {value}')
        optional.append(OTHERS)
    if not pairs:
        return '"{" space "}"'
    rule = '"{" space ' + ' "," space '.join(pairs[one] for one in required)
    if optional:
        starts = " | ".join(_starts(writer, pairs, optional, prefix))
        rule += f' ( "," space ( {starts} ) )?' if required else f" ({starts} )?"
    return rule + ' space "}"'


def _starts(writer: RuleWriter, pairs: Mapping[str | None, str], names: Sequence[str | None], prefix: str) -> list[str]:
    """For each of some optional properties: it first, then any of those after it."""
    found, rest = [], ""  # a reference to the rule of any of those that follow, each after a comma
    for place in range(len(names) - 1, -1, -1):
        name, before = names[place], names[place - 1]
        more = f' ( "," space {pairs[name]} )*' if name == OTHERS else ""
        found.append(pairs[name] + more + rest)
        rule = f'( "," space {pairs[name]} ){"*" if name == OTHERS else "?"}{rest}'
        if place:
            rest = " " + writer.add(f"{prefix}{before}-rest", rule)
    return found[::-1]


def other_strings(writer: RuleWriter, names: Sequence[str], rule_name: str) -> str:
    """JSON strings that are none of these names.

    They follow the tree of the names and leave it. A character that JSON escapes is in no branch:
    escapes follow only where a name has been left.
    """
    char = writer.primitive("char")
    tree: dict[str, dict] = {}
    for name in names:
        node = tree
        for character in name:
            if json_text(character) != f'"{character}"':
                break
            node = node.setdefault(character, {})
        else:
            node[END] = {}

    def left_at(node: dict[str, dict]) -> str:
        parts, refused = [], ""
        for character, child in node.items():
            if character == END:
                continue
            member = set_member(ord(character))
            refused += member
            ends_here = child.keys() == {END}
            after = f"{char}+" if ends_here else writer.add(f"{rule_name}-{len(parts)}", left_at(child))
            parts.append(f"[{member}] {after}")
        parts.append(rf'[^"\\\x7F\x00-\x1F{refused}] {char}*')
        return " | ".join(parts)

    return f'["] ( {left_at(tree)} ){"" if END in tree else "?"} ["]'
