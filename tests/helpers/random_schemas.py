"""JSON schemas of every kind that a grammar keeps, and a validator of their keywords."""

import json
import re

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "ab", "abc", "b", "x y", 'quo"te', "value", "日本", ""])
PATTERNS = st.sampled_from(["^a+$", "^[a-c]{2,3}$", "b", "^(?:ab|c)\\d?$", "^[^a]*$", '^"\\\\x?$', "^.{1,2}$", "1$"])
INTEGERS = st.integers(-3000, 3000)


@st.composite
def bounds(draw: st.DrawFn) -> dict[str, object]:
    low, high = sorted((draw(INTEGERS), draw(INTEGERS)))
    chosen = draw(st.sets(st.sampled_from(["minimum", "maximum"])))
    return {"type": "integer", **{name: {"minimum": low, "maximum": high}[name] for name in chosen}}


@st.composite
def lengths(draw: st.DrawFn, least: str, most: str) -> dict[str, int]:
    low, high = sorted((draw(st.integers(0, 3)), draw(st.integers(0, 4))))
    chosen = draw(st.sets(st.sampled_from([least, most])))
    return {name: {least: low, most: high}[name] for name in chosen}


LEAVES = st.one_of(
    st.sampled_from([{}, {"type": "null"}, {"type": "boolean"}, {"type": "number"}, {"type": "string"}]),
    bounds(),
    lengths("minLength", "maxLength").map(lambda found: {"type": "string", **found}),
    PATTERNS.map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.lists(st.sampled_from([1, "a", None, True, [1], {"a": "b"}]), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from([{"const": "a\n\"'"}, {"type": ["string", "null"]}, {"$ref": "#/$defs/a"}]),
)


def objects(parts: st.SearchStrategy) -> st.SearchStrategy:
    @st.composite
    def made(draw: st.DrawFn) -> dict[str, object]:
        properties = draw(st.dictionaries(NAMES, parts, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        others = draw(st.sampled_from([None, False, True, {"type": "integer"}]))
        more = {} if others is None else {"additionalProperties": others}
        return {"type": "object", "properties": properties, "required": required, **more}

    return made()


SCHEMAS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        objects(parts),
        st.tuples(parts, lengths("minItems", "maxItems")).map(lambda p: {"type": "array", "items": p[0], **p[1]}),
        st.lists(parts, min_size=1, max_size=2).map(lambda items: {"prefixItems": items, "items": False}),
        st.lists(parts, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices}),
    ),
    max_leaves=6,
)
DEFS = {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}


def is_valid(value: object, schema: dict) -> bool:
    """A validator of the keywords that the schemas here have."""
    if "$ref" in schema:
        return is_valid(value, DEFS["$defs"]["a"])
    if "anyOf" in schema:
        return any(is_valid(value, part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return json.dumps(value) in [json.dumps(one) for one in schema.get("enum", [schema.get("const")])]
    kind = schema.get("type", "array" if "prefixItems" in schema else None)
    if isinstance(kind, list):
        return any(is_valid(value, {**schema, "type": one}) for one in kind)
    types = {"null": type(None), "boolean": bool, "string": str, "array": list, "object": dict, "number": (int, float)}
    if kind == "integer":
        low, high = schema.get("minimum", -(10**20)), schema.get("maximum", 10**20)
        return type(value) is int and low <= value <= high
    if kind is None:
        return True
    if not isinstance(value, types[kind]) or (kind == "number" and isinstance(value, bool)):
        return False
    if kind == "string":
        fits = re.search(schema.get("pattern", ""), value) is not None
        return fits and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
    if kind == "array" and "prefixItems" in schema:
        items = schema["prefixItems"]
        return len(value) == len(items) and all(map(is_valid, value, items))
    if kind == "array":
        fits = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
        return fits and all(is_valid(item, schema["items"]) for item in value)
    if kind == "object":
        known, others = schema["properties"], schema.get("additionalProperties", False)
        rest = [item for name, item in value.items() if name not in known]
        fits_rest = others is True or not rest or (others is not False and all(is_valid(i, others) for i in rest))
        parts = all(is_valid(value[name], part) for name, part in known.items() if name in value)
        return fits_rest and parts and set(schema["required"]) <= value.keys()
    return True
