"""A JSON schema as a grammar in GBNF, one rule for each part.

Properties are written in the schema's order, first those that are required. Names and forms of the rules are
llama.cpp's (common/json-schema-to-grammar.cpp), so that a model writes the same text. What no grammar can keep is an
error here, where llama.cpp ignores it.
"""

import json
import re
from collections.abc import Mapping, Sequence

from minillama.engine.grammar.json_schema.gbnf_text import json_text, repeated, separated
from minillama.engine.grammar.json_schema.integer_ranges import integer_bounds, integer_range
from minillama.engine.grammar.json_schema.keywords import (
    CHOICES,
    TYPES,
    Schema,
    check_keywords,
    check_typed,
    count,
    failure,
    has_type,
    kind_by_keywords,
    required_names,
)
from minillama.engine.grammar.json_schema.notation import JSON, Notation
from minillama.engine.grammar.json_schema.object_rule import ObjectProperty, object_rule
from minillama.engine.grammar.json_schema.primitive_rules import SPACE_RULE
from minillama.engine.grammar.json_schema.references import part_of, resolved
from minillama.engine.grammar.json_schema.string_limits import string_limits
from minillama.errors import OptionError, quoted

DEEPEST = 40  # parts of a schema in each other
MOST_RULES = 20_000


def schema_to_gbnf(schema: object) -> str:
    """The grammar of a JSON schema: a mapping, or its text.

    Raises OptionError for a schema that cannot be kept, with the part of it.
    """
    rules = SchemaRules()
    rules.add_schema(schema, "")
    return rules.text()


class SchemaRules:
    """The rules of one grammar, with those of one or more schemas."""

    def __init__(self, notation: Notation = JSON) -> None:
        self.notation = notation
        self._root: object = None  # of the schema that is being written
        self._prefix = ""  # of the rules of its references
        self._rules = {"space": SPACE_RULE}
        self._names: dict[tuple[str, str], str] = {}  # of a wanted name and a rule
        self._numbers: dict[str, int] = {}  # the next suffix of a name that several rules want
        self._opened: set[str] = set()  # references whose rule is being written
        self._depth = 0

    def add_schema(self, schema: object, name: str) -> str:
        """Write the rules of a schema (a mapping, or its text); the first one's name.

        name: with "" it is `root`. Raises OptionError for a schema that cannot be kept.
        """
        self._open(schema, name)
        return self.visit(self._root, name, "#")

    def add_object(self, schema: object, name: str) -> str:
        """As `add_schema`, for a schema that allows objects only; raises OptionError for another one."""
        self._open(schema, name)
        self._object_schema({"allOf"})
        return self.visit(self._root, name, "#")

    def object_parts(self, schema: object, name: str) -> tuple[list[ObjectProperty], object]:
        """The properties of a schema of objects, and the schema of all others; see `object_rule`.

        The caller visits the parts. Raises OptionError for another schema.
        """
        self._open(schema, name)
        found = self._object_schema(set())
        check_typed(found, "object", "#")
        return self._properties(found, "#")

    def _object_schema(self, choices: set[str]) -> Schema:
        """The schema that is being written, if it is one of objects.

        choices: those of `CHOICES` that it may have. Raises OptionError for another one.
        """
        found = resolved(self._root, self._root, "#")
        has_type = found.get("type") == "object" or kind_by_keywords(found) == "object" or choices & found.keys()
        if not has_type or (CHOICES - choices) & found.keys():
            raise failure("#", "the parameters of a function are to be an object with properties")
        return found

    def _open(self, schema: object, name: str) -> None:
        try:
            self._root = json.loads(schema if isinstance(schema, str) else json.dumps(schema))
            json.dumps(self._root, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(f"the JSON schema is not JSON: {error}") from None
        self._prefix = f"{name}-" if name else ""
        self._opened.clear()
        self._depth = 0

    def text(self) -> str:
        """The grammar in GBNF."""
        return "".join(f"{name} ::= {rule}\n" for name, rule in sorted(self._rules.items()))

    def visit(self, schema: object, name: str, path: str) -> str:
        """Write the rule of a part of the schema; the name of the rule."""
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise failure(path, f"expected an object with keywords, not {quoted(schema)}")
        self._depth += 1
        if self._depth > DEEPEST:
            raise failure(path, f"more than {DEEPEST} parts in each other")
        rule_name = f"{name}-" if name == "root" or name in self.notation.primitives else name or "root"
        found = self._visit(schema, name, rule_name, path)
        self._depth -= 1
        return found

    def _visit(self, schema: Schema, name: str, rule_name: str, path: str) -> str:
        for choice in ("$ref", "oneOf", "anyOf"):
            if choice in schema:
                check_keywords(schema, {choice}, path)
                if choice == "$ref":
                    return self.add(rule_name, self._reference(schema[choice], path))
                return self.add(rule_name, self._union(_schemas(schema[choice], path), name, f"{path}/{choice}"))
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind] * ("type" in schema)
        for one in kinds or [kind] * isinstance(kind, list):
            if one not in TYPES:
                raise failure(path, f"type is {quoted(one)}; expected one of {', '.join(TYPES)}")
        if "const" in schema or "enum" in schema:
            return self._constants(schema, kinds, rule_name, path)
        if isinstance(kind, list):
            alternatives = [{**schema, "type": one} for one in kind]
            return self.add(rule_name, self._union(alternatives, name, f"{path}/type"))
        if "allOf" in schema:
            check_keywords(schema, {"allOf"}, path)
            return self._all_of(_schemas(schema["allOf"], path), name, rule_name, path)
        return self._typed(schema, kind or kind_by_keywords(schema), name, rule_name, path)

    def _typed(self, schema: Schema, kind: object, name: str, rule_name: str, path: str) -> str:
        if kind is None:
            check_keywords(schema, {"format"}, path)
            return self.add(rule_name, self.primitive("value"))
        check_typed(schema, str(kind), path)
        if kind == "object":
            return self._object(schema, name, rule_name, path)
        if kind == "array":
            return self._array(schema, name, rule_name, path)
        if kind == "string":
            return self._string(schema, rule_name, path)
        if kind == "integer":
            low, high = integer_bounds(schema, path)
            if low is not None or high is not None:
                return self.add(rule_name, f"({integer_range(low, high)})")
        return self._whole_type(rule_name, str(kind))

    def _whole_type(self, rule_name: str, kind: str) -> str:
        return self.primitive(kind, "root" if rule_name == "root" else kind)

    def _object(self, schema: Schema, name: str, rule_name: str, path: str) -> str:
        properties, others = self._properties(schema, path)
        if others in (True, {}) and not properties:
            return self.add(rule_name, self.primitive("object"))
        return self.add(rule_name, object_rule(self, properties, others, name, path))

    def _properties(self, schema: Schema, path: str) -> tuple[list[ObjectProperty], object]:
        described, required = schema.get("properties", {}), required_names(schema, path)
        if not isinstance(described, Mapping):
            raise failure(path, "properties is not an object")
        for wanted in required:
            if wanted not in described:
                raise failure(path, f"required names {quoted(wanted)}, which properties does not describe")
        others = schema.get("additionalProperties", "properties" not in schema)
        properties = [
            ObjectProperty(key, part, f"{path}/properties/{key}", key in required) for key, part in described.items()
        ]
        return properties, others

    def _array(self, schema: Schema, name: str, rule_name: str, path: str) -> str:
        least, most = count(schema, "minItems", path) or 0, count(schema, "maxItems", path)
        if most is not None and most < least:
            raise failure(path, f"minItems is {least}, more than maxItems, {most}")
        prefix = f"{name}-" if name else ""
        items = schema.get("items", {})
        if "prefixItems" in schema:
            if items not in ({}, False):
                raise failure(path, "prefixItems and items together are not supported; remove one")
            items = schema["prefixItems"]
        if isinstance(items, list):
            if least > len(items) or (most is not None and most < len(items)):
                raise failure(path, f"minItems and maxItems do not allow the {len(items)} items")
            places = [self.visit(item, f"{prefix}tuple-{i}", f"{path}/items/{i}") for i, item in enumerate(items)]
            inside = ' "," space '.join(places)
            return self.add(rule_name, f'"[" space {inside} space "]"')
        if items in ({}, True) and not least and most is None:
            return self._whole_type(rule_name, "array")
        item = self.visit(items, f"{prefix}item", f"{path}/items")
        return self.add(rule_name, f'"[" space {separated(item, least, most)} space "]"')

    def _string(self, schema: Schema, rule_name: str, path: str) -> str:
        limits = string_limits(schema, path)
        if limits.pattern is not None:
            return self.add(rule_name, self.notation.pattern(limits.pattern, path))
        if limits.rule is not None:
            is_whole = limits.rule == "uuid"
            return self._whole_type(rule_name, "uuid") if is_whole else self.add(rule_name, self.primitive(limits.rule))
        if limits.has_length:
            quote, characters = self.notation.quote, repeated(self.primitive("char"), limits.least, limits.most)
            return self.add(rule_name, f"{quote} {characters} {quote}")
        return self._whole_type(rule_name, "string")

    def _constants(self, schema: Schema, kinds: Sequence[object], rule_name: str, path: str) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise failure(path, "enum is not a list of values")
        check_keywords(schema, {"const", "enum", "format"}, path)
        if "const" in schema and "enum" in schema:
            raise failure(path, "const and enum together are not supported; remove one")
        for value in values:
            if kinds and not any(has_type(value, str(kind)) for kind in kinds):
                raise failure(path, f"{quoted(value)} is not of the type {quoted(schema['type'])}; remove it")
        literals = [self.notation.constant(value, path) for value in values]
        return self.add(rule_name, literals[0] if "const" in schema else f"({' | '.join(literals)})")

    def _all_of(self, parts: Sequence[object], name: str, rule_name: str, path: str) -> str:
        """Objects, whose properties are put together, or enumerations, whose common values are."""
        parts = [resolved(self._root, part, f"{path}/allOf/{i}") for i, part in enumerate(parts)]
        if len(parts) == 1:
            return self.visit(parts[0], name, f"{path}/allOf/0")
        if all(isinstance(part.get("enum"), list) for part in parts):
            for i, part in enumerate(parts):
                check_keywords(part, {"enum"}, f"{path}/allOf/{i}")
            others = [set(map(json_text, part["enum"])) for part in parts[1:]]
            common = [value for value in parts[0]["enum"] if all(json_text(value) in other for other in others)]
            return self._constants({"enum": common}, (), rule_name, path)
        properties: list[ObjectProperty] = []
        for i, part in enumerate(parts):
            here = f"{path}/allOf/{i}"
            check_keywords(part, {"properties", "required"}, here)
            if part.get("type", "object") != "object" or not isinstance(part.get("properties"), Mapping):
                raise failure(here, "allOf is supported for objects with properties, and for enumerations")
            required = required_names(part, here)
            properties += [
                ObjectProperty(key, value, f"{here}/properties/{key}", key in required)
                for key, value in part["properties"].items()
            ]
        known = {one.name for one in properties}
        if len(known) < len(properties):
            raise failure(path, "parts of allOf describe the same property")
        for wanted in (key for part in parts for key in part.get("required", ())):
            if wanted not in known:
                raise failure(path, f"required names {quoted(wanted)}, which properties does not describe")
        return self.add(rule_name, object_rule(self, properties, False, name, path))

    def _union(self, parts: Sequence[object], name: str, path: str) -> str:
        prefix = f"{name}-" if name else "alternative-"
        return " | ".join(self.visit(part, f"{prefix}{i}", f"{path}/{i}") for i, part in enumerate(parts))

    def _reference(self, reference: object, path: str) -> str:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise failure(
                path, f"$ref is {quoted(reference)}; only parts of this schema are supported, as in #/$defs/a"
            )
        name = f"{self._prefix}ref" + re.sub("[^a-zA-Z0-9-]+", "-", reference[1:])
        if name in self._rules or reference in self._opened:
            return name
        self._opened.add(reference)
        found = self.visit(part_of(self._root, reference, path), name, reference)
        self._opened.discard(reference)
        return found

    def primitive(self, kind: str, name: str | None = None) -> str:
        """The name of a rule of `PRIMITIVE_RULES`, which is added with those that it uses."""
        rule, uses = self.notation.primitives[kind]
        added = self.add(name or kind, rule)
        for used in uses:
            if used not in self._rules:
                self.primitive(used)
        return added

    def add(self, name: str, rule: str) -> str:
        """Add a rule; its name, with a number where another rule has the name."""
        name = re.sub("[^a-zA-Z0-9-]+", "-", name)
        if (name, rule) in self._names:
            return self._names[name, rule]
        found = name
        while self._rules.get(found, rule) != rule:
            number = self._numbers.get(name, 0)
            found, self._numbers[name] = f"{name}{number}", number + 1
        self._rules[found], self._names[name, rule] = rule, found
        if len(self._rules) > MOST_RULES:
            raise OptionError(f"the JSON schema needs more than {MOST_RULES} rules; make it smaller")
        return found


def _schemas(value: object, path: str) -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise failure(path, "expected a list of schemas")
    return value
