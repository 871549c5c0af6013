"""JSON schemas: every text of the grammar is valid JSON of the schema, and what cannot be kept is refused."""

import json
import random
import time

import pytest
from grammar_oracle import random_text, readable_vocabulary
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_schemas import DEFS, SCHEMAS, is_valid

from minillama.engine.grammar import Grammar
from minillama.engine.grammar.json_schema.integer_ranges import integer_range
from minillama.engine.grammar.json_schema.schema_grammar import schema_to_gbnf
from minillama.errors import OptionError


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
        ({"required": [{}], "properties": {}}, r"required is \[{}\]; expected a list of names"),
        ({"allOf": [{"properties": {"a": {}}, "required": 5}, {"properties": {}}]}, "required is 5"),
        ({"allOf": [{"enum": 5}, {"enum": [1]}]}, "'enum' is not supported here"),
        ({"$ref": f"#/$defs/{'9' * 5000}", "$defs": [1]}, "is not there"),
        ({"format": {}}, None),
        ({"type": "string", "pattern": "a" * 30_000}, "a pattern of 30000 characters"),
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


class TestLargeSchemas:
    """Time grows with the size of a schema, not with its square."""

    @pytest.mark.parametrize(
        "names",
        [[f"property{number}" for number in range(4000)], [chr(0x4E00 + number) for number in range(6000)]],
        ids=["plain", "names that are equal in GBNF"],
    )
    def test_optional_properties(self, names: list[str]) -> None:
        started = time.process_time()
        text = schema_to_gbnf({"properties": {name: {"type": "null"} for name in names}})
        assert text.count("-rest") >= 2 * (len(names) - 1)
        assert time.process_time() - started < 5

    def test_required_properties(self) -> None:
        names = [f"property{number}" for number in range(8000)]
        started = time.process_time()
        schema_to_gbnf({"properties": {name: {"type": "null"} for name in names}, "required": names})
        assert time.process_time() - started < 5
