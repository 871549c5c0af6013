"""Grammars of tool calls: in every form, each text is calls that the reader finds and the schemas accept."""

import random

import pytest
from call_texts import call_tokenizer, call_vocabulary, random_answer, read_calls
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_schemas import DEFS, SCHEMAS, is_valid

from minillama.engine.grammar import Grammar, LazyGrammar
from minillama.engine.grammar.tool_calls.call_grammar import CallGrammarWriter
from minillama.engine.grammar.tool_calls.function_tools import read_functions
from minillama.errors import OptionError
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts
from minillama.tokenizer.chat.reasoning_format import HARMONY, THINK
from minillama.tokenizer.chat.tool_calls.call_formats import FORMATS, GENERIC, call_format

FORMS = [*(form for _, form in FORMATS), GENERIC]
ANY = {"type": "object"}
QWEN_XML, HERMES, GEMMA = call_format("<function= <parameter="), call_format("<tool_call>"), call_format("<|tool_call>")


def tool(name: str, properties: dict, *required: str, **more: object) -> dict:
    parameters = {"type": "object", "properties": properties, "required": list(required), **DEFS}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


KEYS = st.sampled_from(["a", "b_1", "city", "note", "x"])
PARAMETERS = st.dictionaries(KEYS, SCHEMAS, max_size=4).flatmap(
    lambda found: st.tuples(st.just(found), st.sets(st.sampled_from(sorted(found))) if found else st.just(set()))
)


@pytest.mark.slow
@settings(max_examples=25)
@given(st.sampled_from(FORMS), st.lists(PARAMETERS, min_size=1, max_size=2), st.booleans(), st.integers(0, 2**32))
def test_random_texts_are_valid_calls(form: object, parameters: list, is_parallel: bool, seed: int) -> None:
    tools = [tool(f"f{i}", found, *required) for i, (found, required) in enumerate(parameters)]
    writer = CallGrammarWriter(call_tokenizer(), form, is_parallel)
    try:
        gbnf = writer.required(read_functions(tools), None).gbnf
    except OptionError as error:  # a schema that the notation cannot keep
        assert "function" in str(error)
        assume(False)
    text = random_answer(gbnf, random.Random(seed))
    assume(text is not None)
    rest, calls = read_calls(form, tools, text)
    assert calls and not rest.strip(), text
    assert is_parallel or len(calls) == 1
    for name, arguments in calls:
        schema = next(each["function"]["parameters"] for each in tools if each["function"]["name"] == name)
        assert is_valid(arguments, schema), text


EVERY_KIND = {
    "a": {"type": "integer"}, "s": {"type": "string"}, "e": {"enum": ["x", "y"]}, "n": {"type": ["null", "number"]},
    "l": {"type": "array", "items": {"type": "string"}, "maxItems": 2}, "p": {"type": "string", "pattern": "^[ab]+$"},
    "m": {"type": "string", "minLength": 1, "maxLength": 3}, "c": {"const": "x"},
    "o": {"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k"]},
}  # fmt: skip


@pytest.mark.parametrize("form", [HERMES, QWEN_XML, GEMMA, call_format("<|tool_list_start|>")])
def test_every_kind_of_argument(form: object) -> None:
    check_form(form, range(2))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.starts[0])
def test_every_form(form: object) -> None:
    check_form(form, range(6))


def check_form(form: object, seeds: range) -> None:
    tools = [tool("f", EVERY_KIND, "a", "s"), {"type": "function", "function": {"name": "any", "parameters": ANY}}]
    gbnf = CallGrammarWriter(call_tokenizer(), form).required(read_functions(tools), None).gbnf
    texts = [text for seed in seeds if (text := random_answer(gbnf, random.Random(seed))) is not None]
    assert texts
    for text in texts:
        rest, calls = read_calls(form, tools, text)
        assert calls and not rest.strip(), text
        for name, arguments in calls:
            assert isinstance(arguments, dict)
            assert name == "any" or is_valid(arguments, tools[0]["function"]["parameters"]), text


@pytest.mark.parametrize("form", [HERMES, QWEN_XML, GEMMA])
def test_what_cannot_be_kept_is_refused_or_loosened(form: object) -> None:
    schema = {"a": {"type": "integer", "multipleOf": 2}}
    writer = CallGrammarWriter(call_tokenizer(), form)
    with pytest.raises(OptionError, match=r"function 'f': .*'multipleOf' is not supported"):
        writer.required(read_functions([tool("f", schema)]), None)
    with pytest.raises(OptionError, match="function 'f'"):
        writer.optional(read_functions([tool("f", schema, strict=True)]))
    assert writer.optional(read_functions([tool("f", schema)])) is not None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ({"name": "two words"}, "cannot write the name 'two words'"),
        ({"name": "f", "parameters": {"type": "string"}}, "are to be an object"),
        ({"name": "f", "parameters": {"type": "object", "properties": {"a\n": {}}}}, "cannot write the argument"),
        ({"name": "f", "parameters": {"anyOf": [{"type": "object"}]}}, "are to be an object"),
        ({"name": "f", "parameters": "x"}, "is not JSON"),
    ],
)
def test_refused(function: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CallGrammarWriter(call_tokenizer(), QWEN_XML).required(read_functions([{"function": function}]), None)


def test_without_a_function() -> None:
    with pytest.raises(OptionError, match="no function"):
        CallGrammarWriter(call_tokenizer(), HERMES).required([], None)


ADD = [tool("add", {"a": {"type": "integer"}}, "a")]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
XML_CALL = "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
TO_ADD = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}'


@pytest.mark.parametrize(
    ("form", "thoughts", "fits", "wrong"),
    [
        (HERMES, None, [CALL, CALL.replace("\n", ""), f"{CALL}\n{CALL}"], ["<think>x</think>" + CALL, "x" + CALL, ""]),
        (HERMES, PromptThoughts(THINK, is_open=False), [CALL, f"<think>a < b</think>\n\n{CALL}"], ["a</think>" + CALL]),
        (HERMES, PromptThoughts(THINK, is_open=True), [f"a</think>\n{CALL}", f"{CALL}</think>{CALL}"], [CALL]),
        (QWEN_XML, PromptThoughts(THINK, is_open=True), [f"a</think>{XML_CALL}"], [f"{XML_CALL}</think>{XML_CALL}"]),
        (call_format("<|channel|>"), PromptThoughts(HARMONY, is_open=False),
         [TO_ADD, f"<|channel|>analysis<|message|>a<|end|><|start|>assistant{TO_ADD}"],
         [f"<|channel|>analysis<|message|>a<|start|>assistant{TO_ADD}", "<|channel|>final<|message|>a"]),
        (call_format("<|channel|> "), None, [TO_ADD], [TO_ADD.replace("1", '"1"')]),
    ],
)  # fmt: skip
def test_thoughts_before_a_call(form: object, thoughts: PromptThoughts, fits: list[str], wrong: list[str]) -> None:
    gbnf = CallGrammarWriter(call_tokenizer(), form).required(read_functions(ADD), thoughts).gbnf
    grammar = Grammar(gbnf, call_vocabulary())
    assert [text for text in fits if not is_whole(grammar, text)] == []
    assert [text for text in wrong if is_whole(grammar, text)] == []


def is_whole(grammar: Grammar, text: str) -> bool:
    state = grammar.start()
    for token in call_tokenizer().encode(text):
        if not state.allows(token):
            return False
        state = state.accept(token)
    return state.is_complete


def after(form: object, text: str) -> object:
    """The state of an optional call after a text."""
    found = CallGrammarWriter(call_tokenizer(), form).optional(read_functions(ADD))
    state = LazyGrammar(Grammar(found.gbnf, call_vocabulary()), found.triggers).start()
    for token in call_tokenizer().encode(text):
        state = state.accept(token)
    return state


@pytest.mark.parametrize(
    ("form", "text", "is_free"),
    [
        (HERMES, "Use a tool. " * 40, True),
        (HERMES, 'Use it: <tool_call>\n{"name": "', False),
        (QWEN_XML, "x" * 300 + "<tool_call>", False),
        (GEMMA, "<|tool_call>", False),
        (call_format("<|channel|>"), "<|channel|>commentary to=functions.", False),
        (call_format("<|channel|>"), "<|channel|>analysis<|message|>a<|end|><|start|>assistant to=functions.", False),
        (call_format("<|channel|>"), "<|channel|>final<|message|>write to=functions.", True),
        (call_format("[TOOL_CALLS] [ARGS]"), "[TOOL_CALLS]ad", False),
    ],
)
def test_a_call_is_bound_from_its_tag_on(form: object, text: str, is_free: bool) -> None:
    state = after(form, text)
    allowed = [token for token in range(call_tokenizer().size) if state.allows(token)]
    assert (len(allowed) == call_tokenizer().size) == is_free
    assert is_free or len(allowed) < 20


def test_without_a_tag_nothing_is_bound() -> None:
    assert CallGrammarWriter(call_tokenizer(), GENERIC).optional(read_functions(ADD)) is None
