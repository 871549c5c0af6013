"""Random JSON schemas, and a check of the texts that they allow."""

import copy
import json
import random
import re

import jsonschema

from tests.fuzz import hostile_values
from tests.fuzz.case_kind import Finding
from tests.fuzz.wire_mutations import json_value

NAMES = ("a", "ab", "abc", "b", "x y", 'quo"te', "value", "日本", "", "root", "space", "a-b", "a_b", "é\n")
PATTERNS = (
    "^a+$", "^[a-c]{2,3}$", "b", "^(?:ab|c)\\d?$", "^[^a]*$", '^"\\\\x?$', "^.{1,2}$", "1$", "^(a|b|)+$", "[0-9-]",
    "^a{2,}b*c?$", "^(?:a(?:b(?:c)?)?)?$", "(?=a)", "a^", "[", "\\", "(", "a{99999}", "^(a*)*$", "^[\\x00-\\x7f]$",
)  # fmt: skip
VALUES = (1, "a", None, True, [1], {"a": "b"}, -0.5, "日\n", "", 10**15, {"": [[]]})
KEYWORDS = (
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems",
    "pattern", "format", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "$ref", "anyOf", "oneOf", "allOf", "const", "enum", "not", "if", "uniqueItems", "patternProperties", "title",
    "propertyNames", "multipleOf", "$defs", "description", "default", "dependentRequired", "contains",
)  # fmt: skip
ROOT = "#/$defs/a"


def random_schema(rng: random.Random) -> dict[str, object]:
    """A schema of the keywords that grammars keep; no part of it is that of another schema."""
    defs = {"a": {"type": "array", "items": {"$ref": ROOT}}, "b": _schema(rng, 2)}
    return copy.deepcopy({**_schema(rng, 0), "$defs": defs})


def _schema(rng: random.Random, depth: int) -> dict[str, object]:
    choice = rng.randrange(9 if depth > 2 else 14)
    if choice == 0:
        return copy.deepcopy(rng.choice(({}, {"type": "null"}, {"type": "boolean"}, {"type": "number"})))
    if choice == 1:
        return {"type": "integer", **_bounds(rng, "minimum", "maximum", (-3000, -10, 0, 7, 99, 100, 10**7))}
    if choice == 2:
        return {"type": "string", **_bounds(rng, "minLength", "maxLength", (0, 1, 2, 3))}
    if choice == 3:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    if choice == 4:
        return {"enum": rng.sample(VALUES, rng.randrange(1, 4))}
    if choice == 5:
        return {"const": rng.choice(VALUES)}
    if choice == 6:
        return {"type": rng.sample(("string", "null", "integer", "boolean", "array", "object"), rng.randrange(1, 4))}
    if choice == 7:
        return {"$ref": rng.choice((ROOT, "#/$defs/b", "#", "#/$defs/none"))}
    if choice == 8:
        return {"type": "string", "format": rng.choice(("date", "time", "date-time", "uuid", "email"))}
    if choice < 11:
        return _object(rng, depth)
    if choice == 11:
        return {"type": "array", "items": _schema(rng, depth + 1), **_bounds(rng, "minItems", "maxItems", (0, 1, 2, 3))}
    if choice == 12:
        return {"prefixItems": [_schema(rng, depth + 1) for _ in range(rng.randrange(1, 3))], "items": False}
    name = rng.choice(("anyOf", "anyOf", "oneOf", "allOf"))
    part = _object if name == "allOf" and rng.random() < 0.7 else _schema
    return {name: [part(rng, depth + 1) for _ in range(rng.randrange(1, 4))]}


def _object(rng: random.Random, depth: int) -> dict[str, object]:
    names = rng.sample(NAMES, rng.randrange(0, 5))
    found: dict[str, object] = {
        "type": "object",
        "properties": {name: _schema(rng, depth + 1) for name in names},
        "required": [name for name in names if rng.random() < 0.5],
    }
    if rng.random() < 0.4:
        found["additionalProperties"] = rng.choice((True, False, {"type": "integer"}, {}))
    return found


def _bounds(rng: random.Random, least: str, most: str, values: tuple[int, ...]) -> dict[str, int]:
    low, high = sorted(rng.choices(values, k=2))
    return {name: value for name, value in ((least, low), (most, high)) if rng.random() < 0.6}


def change_schema(rng: random.Random, schema: dict[str, object]) -> None:
    """Put a hostile value or another keyword somewhere."""
    place: dict | list = schema
    while True:
        if isinstance(place, dict) and rng.random() < 0.15:
            place[rng.choice(KEYWORDS)] = rng.choice((json_value(rng), _schema(rng, 2), [_schema(rng, 2)]))
            return
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
            place = place[key]
            continue
        place[key] = json_value(rng) if rng.random() < 0.9 else hostile_values.integer(rng)
        return


def large_schema(rng: random.Random) -> object:
    """A schema of many parts."""
    count = rng.choice((50, 300, 2000, 20_000))
    choice = rng.randrange(8)
    names = [f"property{number}" for number in range(count)]
    if choice == 0:
        return {"properties": {name: {"type": "null"} for name in names}}
    if choice == 1:
        return {"properties": {name: {} for name in names}, "required": names, "additionalProperties": True}
    if choice == 2:
        return {"enum": names}
    if choice == 3:
        return {"enum": [chr(0x4E00 + number) for number in range(count)]}
    if choice == 4:
        return {"properties": {"a" * number: True for number in range(min(count, 2000))}, "additionalProperties": {}}
    if choice == 5:
        return {"anyOf": [{"type": "string", "maxLength": number} for number in range(count)]}
    if choice == 6:
        return {"type": "string", "pattern": rng.choice(("a?", "(a|b)", "[a-z]{1,9}", "(", ".*", "a|")) * count}
    return '{"items": ' * count + "{}" + "}" * count


def check_text(text: str, schema: object) -> None:
    """A whole text of a schema's grammar must be JSON that the schema allows."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Finding(f"{text!r} is not JSON: {error}") from None
    schema = _with_any_of(schema)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        problem = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    except (jsonschema.SchemaError, re.error, RecursionError):
        return
    except Exception as error:  # of references that jsonschema does not follow
        if type(error).__module__.startswith(("referencing", "jsonschema")):
            return
        raise
    if problem is not None:
        raise Finding(f"{text!r} is not of the schema: {problem.message:.300}")


def _with_any_of(schema: object) -> object:
    """oneOf as grammars keep it: at least one."""
    if isinstance(schema, dict):
        return {("anyOf" if key == "oneOf" else key): _with_any_of(value) for key, value in schema.items()}
    return [_with_any_of(value) for value in schema] if isinstance(schema, list) else schema
