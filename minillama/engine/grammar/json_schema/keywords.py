"""Checks of a JSON schema's keywords: what a grammar cannot keep is refused, never ignored."""

from collections.abc import Mapping

from minillama.engine.grammar.json_schema.primitive_rules import FORMATS
from minillama.errors import OptionError, quoted

Schema = Mapping[str, object]

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
# Keywords that limit the values of a type, and which of them a grammar can keep.
OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "format", "minLength", "maxLength"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}
NOT_KEPT = {
    "object": {
        "patternProperties", "propertyNames", "minProperties", "maxProperties", "unevaluatedProperties",
        "dependentRequired", "dependentSchemas", "dependencies",
    },
    "array": {"contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems", "additionalItems"},
    "string": set[str](),
    "integer": {"multipleOf"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set[str](),
    "null": set[str](),
}  # fmt: skip
OF_ANY_TYPE = {"not", "if", "then", "else", "$dynamicRef", "$recursiveRef"}
CHOICES = {"$ref", "anyOf", "oneOf", "allOf", "const", "enum"}
LIMITS = set().union(*OF_TYPE.values(), *NOT_KEPT.values(), OF_ANY_TYPE, CHOICES)


def failure(path: str, problem: str) -> OptionError:
    """The error of a schema that no grammar can keep."""
    return OptionError(f"the JSON schema cannot be used, at {path[:200]}: {problem}")


def check_keywords(schema: Schema, kept: set[str], path: str) -> None:
    """Raise OptionError if the schema has a limit that is not kept.

    A value that limits nothing (`uniqueItems: false`) is allowed.
    """
    for name in schema:
        if name in LIMITS and name not in kept and not _limits_nothing(name, schema[name]):
            raise failure(path, f"{quoted(name)} is not supported here; remove it")


def check_typed(schema: Schema, kind: str, path: str) -> None:
    """Raise OptionError if the schema limits its type in a way that is not kept.

    Limits for other types do not matter, as JSON schema has it.
    """
    others = set().union(*(OF_TYPE[other] | NOT_KEPT[other] for other in TYPES if other != kind)) - NOT_KEPT[kind]
    check_keywords(schema, OF_TYPE[kind] | others, path)


def count(schema: Schema, name: str, path: str) -> int | None:
    """A keyword that is a number of items or characters; None if it is absent."""
    value = schema.get(name)
    if name in schema and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise failure(path, f"{name} is {quoted(value)}; expected a whole number of at least 0")
    return value if isinstance(value, int) else None


def text(schema: Schema, name: str, path: str) -> str | None:
    """A keyword that is a text; None if it is absent."""
    value = schema.get(name)
    if name in schema and not isinstance(value, str):
        raise failure(path, f"{name} is {quoted(value)}; expected a text")
    return value if isinstance(value, str) else None


def required_names(schema: Schema, path: str) -> dict[str, None]:
    """The names under `required`, in order."""
    found = schema.get("required", [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise failure(path, f"required is {quoted(found)}; expected a list of names")
    return dict.fromkeys(found)


def kind_by_keywords(schema: Schema) -> str | None:
    """The type that the keywords of a schema without one are for."""
    if "properties" in schema or schema.get("additionalProperties", True) is not True:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    form = schema.get("format")
    has_form = isinstance(form, str) and form in FORMATS
    return "string" if has_form or {"pattern", "minLength", "maxLength"} & schema.keys() else None


def has_type(value: object, kind: str) -> bool:
    """Whether a JSON value has a type."""
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and value == value // 1)
    return kind == {str: "string", list: "array", dict: "object"}.get(type(value))


def _limits_nothing(name: str, value: object) -> bool:
    return value is None or (name, value) in (
        ("uniqueItems", False), ("unevaluatedProperties", True), ("unevaluatedItems", True), ("additionalItems", True),
        ("minProperties", 0), ("propertyNames", True), ("additionalProperties", True),
    ) or value == {}  # fmt: skip
