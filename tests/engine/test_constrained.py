"""Texts of a model under a grammar: alone, among others, and where the grammar cannot be kept."""

import json

import pytest
from call_texts import read_calls
from hypothesis import given, settings
from hypothesis import strategies as st
from random_schemas import DEFS, SCHEMAS, is_valid

import minillama as ml
from minillama.engine.grammar import Triggers
from minillama.engine.grammar.tool_calls.call_grammar import CallGrammarWriter
from minillama.engine.grammar.tool_calls.function_tools import read_functions
from minillama.engine.llm import LLM
from minillama.engine.result import Reason
from minillama.errors import OptionError
from minillama.tokenizer.chat.answer_parts import Uncut
from minillama.tokenizer.chat.tool_calls.call_format import CallFormat
from minillama.tokenizer.chat.tool_calls.call_formats import FORMATS, GENERIC

LIST = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 3}


@pytest.fixture(scope="module")
def llm(builtin_model: object) -> LLM:
    return ml.load(builtin_model)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_schema(llm: LLM, seed: int) -> None:
    completion = llm.generate("Once", json_schema=LIST, n=60, seed=seed)
    assert completion.reason is Reason.STOP
    values = json.loads(completion.text)
    assert 2 <= len(values) <= 3
    assert all(0 <= value <= 99 for value in values)


def test_a_text_that_fits_is_the_text_without_a_grammar(llm: LLM) -> None:
    free = llm.generate("Once upon a time", n=12, seed=3)
    bound = llm.generate("Once upon a time", n=12, seed=3, grammar='root ::= [^"]* | "\\""')
    assert bound.tokens == free.tokens


@pytest.mark.slow
def test_among_others(llm: LLM) -> None:
    options = [{"json_schema": LIST}, {}, {"grammar": 'root ::= " yes" | " no"'}]
    alone = [llm.generate("Once", n=20, seed=5, **chosen).text for chosen in options]
    with llm.batch_engine(slots=2) as engine:
        streams = [engine.submit("Once", n=20, seed=5, **chosen) for chosen in options]
        assert [stream.finish().text for stream in streams] == alone
        with pytest.raises(OptionError, match="rule 'x' is used but not defined"):
            engine.submit("Once", grammar="root ::= x")
        with pytest.raises(OptionError, match="grammar allows no token"):
            engine.submit("Once", n=5, grammar='root ::= "\\x00"').finish()
        assert engine.submit("Once", n=20, seed=5).finish().text == alone[1]


def test_without_an_end_token_the_text_ends_where_it_is_complete(llm: LLM) -> None:
    completion = llm.generate("Once", grammar='root ::= " yes" | " no"', n=50, ignore_eos=True)
    assert completion.reason is Reason.STOP
    assert completion.text in (" yes", " no")


def test_behind_a_trigger(llm: LLM) -> None:
    grammar = llm.requests.grammars.compile('root ::= " a" [.]', triggers=Triggers(words=[" a"]))
    completion = llm.generate("Once upon a time there was", n=60, seed=1, grammar=grammar)
    assert completion.reason is Reason.STOP
    assert completion.text.endswith(" a.")


KEYS = st.sampled_from(["a", "b_1", "city", "note"])


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.sampled_from([*(form for _, form in FORMATS), GENERIC]), st.dictionaries(KEYS, SCHEMAS, max_size=3), st.data()
)
def test_a_required_call_of_any_schema(llm: LLM, form: CallFormat, properties: dict, data: st.DataObject) -> None:
    """Whatever the model writes, a whole answer is a call that the schema accepts."""
    schema = {"type": "object", "properties": properties, "required": sorted(properties)[:1], **DEFS}
    tools: list[object] = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    writer = CallGrammarWriter(llm.tokenizer, form, is_parallel=False)
    try:
        gbnf = writer.required(read_functions(tools), None).gbnf
    except OptionError:  # the form cannot write a property
        return
    options = {"temp": data.draw(st.sampled_from([0.0, 0.8, 3.0])), "seed": data.draw(st.integers(0, 1000))}
    splitter = Uncut(form.markers)
    stream = llm._stream("Once", None, {"grammar": gbnf, "n": 200, **options}, splitter)
    completion = stream.finish()
    if completion.reason is Reason.STOP:
        text, ((name, arguments),) = read_calls(form, tools, completion.text)
        assert name == "f" and is_valid(arguments, schema) and not text.strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grammar": "root ::= ("}, "the grammar cannot be parsed at line 1"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "both given"),
        ({"json_schema": {"type": "integer", "multipleOf": 2}}, "'multipleOf' is not supported"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"grammar": 5}, "is of type int"),
    ],
)
def test_refused(llm: LLM, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        llm.generate("Once", n=5, **options)
