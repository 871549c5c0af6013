"""JSON schemas: every text of the grammar is valid JSON of the schema, and what cannot be kept is refused."""

import json
import random
import re

import pytest
from grammar_oracle import random_text, readable_vocabulary
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minillama.engine.grammar import Grammar
from minillama.engine.grammar.json_schema.integer_ranges import integer_range
from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf
from minillama.errors import OptionError

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


@settings(max_examples=10)
@given(SCHEMAS, st.integers(0, 2**32))
@example({"type": "object", "properties": {"": {}}, "required": []}, 0)
def test_random_texts_are_valid(schema: dict, seed: int) -> None:
    grammar = Grammar(schema_to_gbnf({**schema, **DEFS}), readable_vocabulary())
    rng = random.Random(seed)
    for _ in range(2):
        text, ended = random_text(grammar, rng)
        if ended:
            assert is_valid(json.loads(text, object_pairs_hook=_unique), schema), text


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return dict(pairs)


@settings(max_examples=20)
@given(st.none() | st.integers(-(10**7), 10**7), st.none() | st.integers(-(10**7), 10**7), st.data())
def test_integer_ranges(low: int | None, high: int | None, data: st.DataObject) -> None:
    if low is None and high is None:
        return
    if low is not None and high is not None and low > high:
        low, high = high, low
    machine = Grammar(f"root ::= {integer_range(low, high)}", readable_vocabulary()).machine
    near = [bound + step for bound in (low, high) if bound is not None for step in (-1, 0, 1, 9, -10)]
    for number in [*near, 0, data.draw(st.integers(-(10**8), 10**8))]:
        inside = (low is None or number >= low) and (high is None or number <= high)
        assert machine.is_complete(machine.read(machine.start, str(number))) == inside, number


class TestTexts:
    """The rules are llama.cpp's, so that a model writes the same."""

    @pytest.mark.parametrize(
        ("schema", "rule"),
        [
            ({"const": "42"}, r'"\"42\""'),
            ({"enum": ["a", 1, None]}, r'("\"a\"" | "1" | "null")'),
            ({"type": "array", "items": {"type": "null"}}, r'"[" space (null ("," space null)*)? space "]"'),
            ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3},
             r'"[" space null ("," space null){1,2} space "]"'),
            ({"prefixItems": [{"type": "null"}, {"type": "string"}]},
             r'"[" space null "," space string space "]"'),
            ({"type": "string", "minLength": 1, "maxLength": 3}, r'"\"" char{1,3} "\""'),
            ({"type": "integer", "minimum": 0, "maximum": 23}, "([0-9] | ([1] [0-9] | [2] [0-3]))"),
            ({"type": "integer", "minimum": 3}, "([3-9] | [1-9] [0-9]{1,15})"),
            ({"type": "object", "properties": {"b": {"type": "null"}, "a": {"type": "null"}}, "required": ["a"]},
             '"{" space a-kv ( "," space ( b-kv ) )? space "}"'),
            ({"format": "date"}, "date-string"),
            ({}, "value"),
        ],
    )  # fmt: skip
    def test_root(self, schema: dict, rule: str) -> None:
        assert f"root ::= {rule}\n" in schema_to_gbnf(schema)

    def test_the_order_of_optional_properties(self) -> None:
        schema = {"properties": {name: {"type": "null"} for name in "abc"}}
        machine = Grammar(schema_to_gbnf(schema), readable_vocabulary()).machine
        texts = ["{}", '{"a":null}', '{"a":null,"c":null}', '{"a": null, "b": null, "c": null}']
        wrong = ['{"c":null,"a":null}', '{"a":null,"a":null}', '{"d":null}', '{"a":null,}']
        assert [machine.is_complete(machine.read(machine.start, text)) for text in texts + wrong] == [True] * 4 + [
            False
        ] * 4


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "the JSON schema is not JSON"),
        (5, "at #: expected an object with keywords, not 5"),
        ({"type": "number", "minimum": 1}, "'minimum' is not supported here"),
        ({"type": "thing"}, "type is 'thing'"),
        ({"not": {}, "type": "string"}, None),
        ({"not": {"type": "null"}}, "'not' is not supported"),
        ({"type": "object", "patternProperties": {"a": {"type": "null"}}}, "'patternProperties' is not supported"),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "at #/properties/a: 'uniqueItems'"),
        ({"type": "object", "required": ["a"]}, "required names 'a'"),
        ({"$ref": "http://x/y"}, "only parts of this schema are supported"),
        ({"$ref": "#/$defs/none"}, "'\\$defs' is not there"),
        ({"anyOf": []}, "expected a list of schemas"),
        ({"anyOf": [{}], "properties": {"a": {}}}, "'properties' is not supported here"),
        ({"enum": []}, "enum is not a list of values"),
        ({"type": "string", "enum": [1]}, "1 is not of the type 'string'"),
        ({"type": "string", "pattern": "^(?=a)$"}, "look-around"),
        ({"type": "string", "pattern": "a^b"}, "an anchor inside"),
        ({"type": "string", "pattern": "^a|b"}, "an anchor of one alternative"),
        ({"type": "string", "pattern": "(a"}, r"unbalanced \("),
        ({"type": "string", "pattern": "a)"}, r"unbalanced \)"),
        ({"type": "string", "pattern": "\\p{L}"}, r"\\p is not supported"),
        ({"type": "string", "pattern": "a", "minLength": 2}, "only one of pattern, format"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "more than maxLength"),
        ({"type": "string", "minLength": -1}, "expected a whole number"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no integer is at least 3 and at most 2"),
        ({"type": "integer", "minimum": "3"}, "expected a number within 64 bits"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "more than maxItems"),
        ({"allOf": [{"type": "integer"}, {"type": "number"}]}, "allOf is supported for objects"),
    ],
)
def test_refused(schema: object, message: str | None) -> None:
    if message is None:
        schema_to_gbnf({**schema, "not": None})
        return
    with pytest.raises(OptionError, match=message):
        schema_to_gbnf(schema)


def test_recursion_without_end() -> None:
    schema: dict = {"type": "null"}
    for _ in range(300):
        schema = {"items": schema}
    with pytest.raises(OptionError, match="more than 40 parts in each other"):
        schema_to_gbnf(schema)
    with pytest.raises(OptionError, match="begins with itself"):
        Grammar(schema_to_gbnf({"$ref": "#"}), readable_vocabulary())
