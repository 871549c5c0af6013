"""Tool calls in answers: llama.cpp's vectors of each template, and the same calls for every cut into pieces."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.tokenizer.chat.answer_parts import Splitter
from minillama.tokenizer.chat.chat_template import ChatTemplate
from minillama.tokenizer.chat.reasoning_format import answer_splitter
from minillama.tokenizer.chat.tool_calls.call_formats import FORMATS, GENERIC, call_format
from minillama.tokenizer.chat.tool_calls.call_parts import CallCollector, CallParts, ToolCall
from minillama.tokenizer.chat.tool_calls.call_splitter import CallSplitter, parameter_schemas


def tool(name: str, **types: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in types.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [
    tool("special_function", arg1="integer"),
    tool("special_function_with_opt", arg1="integer", arg2="integer"),
    tool("python", code="string"),
    tool("edit", filename="string", oldString="string", newString="string"),
    tool("todo_list", todos="array"),
    tool("get_time", city="string"),
    tool("get_weather", city="string"),
    tool("empty_args"),
]
QWEN_XML, HERMES, LLAMA = "<think> <tool_call> <function= <parameter=", "<tool_call>", "<|python_tag|>"
GLM, MISTRAL, HARMONY = "<think> <arg_key> <tool_call>", "[TOOL_CALLS]", "<|channel|>"
GEMMA, LFM2, OLMO = "<|channel> <|tool_call>", "<think> <|tool_list_start|>", "<function_calls>"
MINIMAX, SEED, FUNCTIONARY = "<think> <minimax:tool_call>", "<seed:tool_call>", "<function="
MINICPM, APRIEL = '<function name=" <param name="', "<tool_calls>["
DEEPSEEK, DSML, COMMAND = "<think> <｜tool▁call▁begin｜>", "<think> ｜DSML｜", "<|START_ACTION|> <|START_THINKING|>"
ONE = ("special_function", {"arg1": 1}, "")
TWO = [ONE, ("special_function_with_opt", {"arg1": 1, "arg2": 2}, "")]
XML = "<tool_call>\n<function=special_function>\n<parameter=arg1>\n1\n</parameter>\n</function>\n</tool_call>"
XML_2 = (
    "\n<tool_call>\n<function=special_function_with_opt>\n<parameter=arg1>\n1\n</parameter>\n"
    "<parameter=arg2>\n2\n</parameter>\n</function>\n</tool_call>"
)
SEP, CALL, CALL_END = "<｜tool▁sep｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
HERMES_CALL = '<tool_call>\n{"name": "special_function", "arguments": {"arg1": 1}}</tool_call>'
TO_SPECIAL = "to=functions.special_function"

# Template, prompt, answer, and what llama.cpp's parser finds: thoughts, text, calls (tests/test-chat.cpp).
VECTORS: list[tuple[str, str, str, str, str, list[Any]]] = [
    (QWEN_XML, "", XML, "", "", [ONE]),
    (QWEN_XML, "<think>\n", "I'm\nthinking\n</think>\n\n" + XML, "I'm\nthinking", "", [ONE]),
    (QWEN_XML, "", XML + XML_2, "", "", TWO),
    (QWEN_XML, "", XML.removeprefix("<tool_call>\n") + XML_2, "", "", TWO),
    (QWEN_XML, "", "Let me call it.\n" + XML.removeprefix("<tool_call>\n"), "", "Let me call it.\n", [ONE]),
    (QWEN_XML, "<think>\n", XML, "", "", [ONE]),  # a call ends the thoughts
    (QWEN_XML, "<think>\n", "Need to look.\n" + XML, "Need to look.", "", [ONE]),
    (QWEN_XML, "", "Hello, world!\nWhat's up?", "", "Hello, world!\nWhat's up?", []),
    (
        QWEN_XML, "", "<tool_call>\n<function=python>\n<parameter=code>\n    def hello():\n        print(\"<b>\")\n\n"
        "hello()\n</parameter>\n</function>\n</tool_call>",
        "", "", [("python", {"code": '    def hello():\n        print("<b>")\n\nhello()'}, "")],
    ),
    (
        QWEN_XML, "", "<tool_call>\n<function=edit>\n<parameter=filename>\nfoo.c\n</parameter>\n<parameter=oldString>\n"
        "#iclunde\n</parameter>\n<parameter=newString>\n#include\n\n</parameter>\n</function>\n</tool_call>",
        "", "", [("edit", {"filename": "foo.c", "oldString": "#iclunde", "newString": "#include\n"}, "")],
    ),
    (
        QWEN_XML, "", '<tool_call>\n<function=todo_list>\n<parameter=todos>\n[{"item": "Check", "selected": false}]\n'
        "</parameter>\n</function>\n</tool_call>",
        "", "", [("todo_list", {"todos": [{"item": "Check", "selected": False}]}, "")],
    ),
    (QWEN_XML, "", "<tool_call>\n<function=empty_args>\n</function>\n</tool_call>", "", "", [("empty_args", {}, "")]),
    (HERMES, "", HERMES_CALL, "", "", [ONE]),
    (HERMES, "", "Hello, world!\nWhat's up?" + HERMES_CALL, "", "Hello, world!\nWhat's up?", [ONE]),
    (HERMES, "", HERMES_CALL + "\n" + HERMES_CALL, "", "", [ONE, ONE]),
    (HERMES, "", '<tool_call>{"arguments": {"arg1": 1}, "name": "special_function"}</tool_call>', "", "", [ONE]),
    (HERMES, "", '<tool_call>{"name": "empty_args"}</tool_call>', "", "", [("empty_args", {}, "")]),
    (HERMES, "", '<tool_call>{"name": "special_function", "arguments": "{\\"arg1\\": 1}"}</tool_call>', "", "", [ONE]),
    (LLAMA, "", '{"name": "special_function", "parameters": {"arg1": 1}}', "", "", [ONE]),
    (LLAMA, "", '<|python_tag|>{"name": "special_function", "parameters": {"arg1": 1}}', "", "", [ONE]),
    (LLAMA, "", '{"name": "special_function", "parameters": {"arg1": 1}}; '
     '{"name": "special_function_with_opt", "parameters": {"arg1": 1, "arg2": 2}}', "", "", TWO),
    (LLAMA, "", '{"name": "another", "parameters": {}}', "", '{"name": "another", "parameters": {}}', []),
    (LLAMA, "", '```json\n"42"\n```', "", '```json\n"42"\n```', []),
    (MISTRAL, "", '[TOOL_CALLS][{"name": "special_function", "arguments": {"arg1": 1}, "id": "123456789"}]',
     "", "", [(*ONE[:2], "123456789")]),
    (MISTRAL, "", '[TOOL_CALLS]special_function[CALL_ID]123456789[ARGS]{"arg1": 1}', "", "", [(*ONE[:2], "123456789")]),
    (MISTRAL, "", 'Hello[TOOL_CALLS]special_function[ARGS]{"arg1": 1}', "", "Hello", [ONE]),
    (MISTRAL, "", '[TOOL_CALLS]special_function[ARGS]{"arg1": 1}'
     '[TOOL_CALLS]special_function_with_opt[ARGS]{"arg1": 1, "arg2": 2}', "", "", TWO),
    ("[SYSTEM_PROMPT]" + MISTRAL, "", '[THINK]x [TOOL_CALLS]special_function[ARGS]{"arg1":1} y[/THINK]'
     '[TOOL_CALLS]special_function[ARGS]{"arg1": 1}', 'x [TOOL_CALLS]special_function[ARGS]{"arg1":1} y', "", [ONE]),
    (GLM, "", "<tool_call>special_function\n<arg_key>arg1</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
     "", "", [ONE]),
    (GLM, "<think>", "I'm\nthinking</think><tool_call>special_function<arg_key>arg1</arg_key><arg_value>1</arg_value>"
     "</tool_call><tool_call>empty_args</tool_call>", "I'm\nthinking", "", [ONE, ("empty_args", {}, "")]),
    (DEEPSEEK, "<think>",
     f'REASONING</think>CONTENT<｜tool▁calls▁begin｜>{CALL}get_time{SEP}{{"city": "Paris"}}{CALL_END}'
     f'{CALL}get_weather{SEP}{{"city": "Paris"}}{CALL_END}<｜tool▁calls▁end｜>', "REASONING", "CONTENT",
     [("get_time", {"city": "Paris"}, ""), ("get_weather", {"city": "Paris"}, "")]),
    (DEEPSEEK, "<think>", f"</think><｜tool▁calls▁begin｜>{CALL}function{SEP}special_function\n"
     f'```json\n{{"arg1": 1}}```{CALL_END}<｜tool▁calls▁end｜>', "", "", [ONE]),
    (DSML, "<think>", 'R</think>\n\n'
     '<｜DSML｜function_calls>\n<｜DSML｜invoke name="special_function">\n'
     '<｜DSML｜parameter name="arg1" string="false">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
     '</｜DSML｜function_calls>',
     "R", "", [ONE]),
    (COMMAND, "", '<|START_THINKING|>r<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": '
     '"special_function", "parameters": {"arg1": 1}}\n]<|END_ACTION|>', "r", "", [(*ONE[:2], "0")]),
    (GEMMA, "", '<|tool_call>call:get_time{city:<|"|>San Francisco<|"|>}<tool_call|>', "", "",
     [("get_time", {"city": "San Francisco"}, "")]),
    (GEMMA, "", "<|tool_call>call:empty_args{}<tool_call|>", "", "", [("empty_args", {}, "")]),
    (GEMMA, "", '<|channel>thought\nI\'m\nthinking<channel|>'
     '<|tool_call>call:get_time{city:<|"|>Paris<|"|>}<tool_call|>',
     "I'm\nthinking", "", [("get_time", {"city": "Paris"}, "")]),
    (GEMMA, "", 'Hello<|tool_call>call:get_time{city:<|"|>London<|"|>}<tool_call|>'
     '<|tool_call>call:special_function{arg1:-7}<tool_call|>', "", "Hello",
     [("get_time", {"city": "London"}, ""), ("special_function", {"arg1": -7}, "")]),
    (GEMMA, "", '<|tool_call>call:todo_list{todos:[<|"|>buy "milk"<|"|>,{a:true,b:[null,1.5]},[]]}<tool_call|>', "", "",
     [("todo_list", {"todos": ['buy "milk"', {"a": True, "b": [None, 1.5]}, []]}, "")]),
    (GEMMA, "", "<|tool_call>call:unknown{a:1}<tool_call|>", "", "<|tool_call>call:unknown{a:1}<tool_call|>", []),
    (LFM2, "", "<|tool_call_start|>[special_function(arg1=1)]<|tool_call_end|>", "", "", [ONE]),
    (LFM2, "", "<|tool_call_start|>[special_function(arg1=1), special_function_with_opt(arg1=1, arg2=2)]"
     "<|tool_call_end|>", "", "", TWO),
    (LFM2, "", '<|tool_call_start|>[python(code="def hello():\\n    print(\'hey, you\')")]<|tool_call_end|>', "", "",
     [("python", {"code": "def hello():\n    print('hey, you')"}, "")]),
    (LFM2, "", '<|tool_call_start|>[todo_list(todos=[{"a": True, "b": null}, \'x)\', (1, 2)])]<|tool_call_end|>', "",
     "",
     [("todo_list", {"todos": [{"a": True, "b": None}, "x)", [1, 2]]}, "")]),
    (LFM2, "", "Let me check.<|tool_call_start|>[empty_args()]<|tool_call_end|>", "", "Let me check.",
     [("empty_args", {}, "")]),
    (LFM2, "", "Use [link text](url), [Wikipedia](https://www.wikipedia.org).", "",
     "Use [link text](url), [Wikipedia](https://www.wikipedia.org).", []),
    (OLMO, "", "<function_calls>\nspecial_function(arg1=1)\nspecial_function_with_opt(arg1=1, arg2=2)\n"
     "</function_calls>", "", "", TWO),
    (MINIMAX, "", '<minimax:tool_call>\n<invoke name="special_function">\n<parameter name="arg1">1</parameter>\n'
     '</invoke>\n<invoke name="special_function_with_opt">\n<parameter name="arg1">1</parameter>\n'
     '<parameter name="arg2">2</parameter>\n</invoke>\n</minimax:tool_call>', "", "", TWO),
    (SEED, "", "<seed:tool_call>\n<function=special_function>\n<parameter=arg1>1</parameter>\n</function>\n"
     "<function=empty_args>\n</function>\n</seed:tool_call>", "", "", [ONE, ("empty_args", {}, "")]),
    (MINICPM, "", '<function name="python"><param name="code"><![CDATA[if a < b:\n  pass]]></param></function>'
     '<function name="special_function"><param name="arg1">1</param></function>', "", "",
     [("python", {"code": "if a < b:\n  pass"}, ""), ONE]),
    (FUNCTIONARY, "", '<function=special_function>{"arg1": 1}</function>', "", "", [ONE]),
    (APRIEL, "", '<tool_calls>[{"name": "special_function", "arguments": {"arg1": 1}}, '
     '{"name": "empty_args", "arguments": {}}]</tool_calls>', "", "", [ONE, ("empty_args", {}, "")]),
    (QWEN_XML, "", '<tool_call>\n<function=todo_list>\n<parameter=todos>\n["</parameter>", 1]\n</parameter>\n'
     "</function>\n</tool_call>", "", "", [("todo_list", {"todos": ["</parameter>", 1]}, "")]),
    (HARMONY, "", "<|channel|>final<|message|>Hello, world!\nWhat's up?", "", "Hello, world!\nWhat's up?", []),
    (HARMONY, "", f' {TO_SPECIAL}<|channel|>analysis<|message|>{{"arg1": 1}}', "", "", [ONE]),
    (HARMONY, "", f'<|channel|>analysis {TO_SPECIAL}<|message|>{{"arg1": 1}}', "", "", [ONE]),
    (HARMONY, "", f' {TO_SPECIAL}<|channel|>analysis <|constrain|>json<|message|>{{"arg1": 1}}', "", "", [ONE]),
    (HARMONY, "", f"<|channel|>analysis<|message|>I'm\nthinking<|end|><|start|>assistant {TO_SPECIAL}"
     '<|channel|>analysis<|message|>{"arg1": 1}', "I'm\nthinking", "", [ONE]),
    (HARMONY, "", "<|channel|>analysis<|message|>T<|end|><|start|>assistant<|channel|>commentary to=functions.edit "
     '<|constrain|>json<|message|>{"oldString": "if (part < railCount - 1) {", "newString": "if (part < 4) {"}',
     "T", "",
     [("edit", {"oldString": "if (part < railCount - 1) {", "newString": "if (part < 4) {"}, "")]),
]  # fmt: skip


def splitters(source: str, prompt: str) -> tuple[Splitter, CallSplitter]:
    form = call_format(source)
    return answer_splitter(source, prompt, "auto", form), CallSplitter(form, parameter_schemas(TOOLS))


def parse(source: str, prompt: str, pieces: list[str]) -> tuple[str, CallParts]:
    """Thoughts and parts of an answer that comes in pieces."""
    thoughts, calls = splitters(source, prompt)
    reasoning, found = "", CallParts()
    for piece in pieces:
        parts = thoughts.push(piece)
        reasoning += parts.reasoning_content
        found += calls.push(parts.text)
    rest = thoughts.flush()
    return reasoning + rest.reasoning_content, found + calls.push(rest.text) + calls.flush()


def whole_calls(parts: CallParts) -> list[ToolCall]:
    collector = CallCollector()
    for delta in parts.calls:
        collector.add(delta)
    return collector.calls


@pytest.mark.parametrize(("source", "prompt", "answer", "thoughts", "text", "calls"), VECTORS)
def test_vectors_of_llama_cpp(
    source: str, prompt: str, answer: str, thoughts: str, text: str, calls: list[Any]
) -> None:
    reasoning, parts = parse(source, prompt, [answer])
    found = [(call.name, json.loads(call.arguments), call.id) for call in whole_calls(parts)]
    assert (reasoning, parts.text, found) == (thoughts, text, calls)


@given(st.sampled_from(VECTORS), st.lists(st.integers(0, 400), max_size=30))
def test_any_cut_gives_the_same_calls(vector: Any, cuts: list[int]) -> None:
    source, prompt, answer = vector[:3]
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    pieces = [answer[a:b] for a, b in pairwise(places)]
    reasoning, parts = parse(source, prompt, pieces)
    expected_reasoning, expected = parse(source, prompt, [answer])
    assert (reasoning, parts.text, whole_calls(parts)) == (expected_reasoning, expected.text, whole_calls(expected))


FRAGMENTS = [
    "<tool_call>", "</tool_call>", "<function=", "python>", "<parameter=", "code>", "</parameter>", "</function>", "\n",
    '{"name": "python", "arguments": ', '{"code": "x"}', "}", "[", "]", ",", '"', "\\", " ", "text", "[TOOL_CALLS]",
    "python[ARGS]", "<arg_key>", "<|tool_call>", "call:python{", 'code:<|"|>', '<|"|>', "python(", "code=", ")", "(",
    "<|channel|>", "<|message|>", " to=functions.python", CALL, SEP, "<|python_tag|>",
]  # fmt: skip


@given(st.sampled_from([texts[0] for texts, _ in FORMATS] + [""]), st.lists(st.sampled_from(FRAGMENTS), max_size=25))
def test_hostile_answers_give_the_same_in_characters_and_lose_no_text(source: str, fragments: list[str]) -> None:
    answer = "".join(fragments)
    form = call_format(source)

    def read(pieces: list[str]) -> CallParts:
        splitter = CallSplitter(form, parameter_schemas(TOOLS))
        parts = CallParts()
        for piece in pieces:
            parts += splitter.push(piece)
        return parts + splitter.flush()

    whole = read([answer])
    single = read(list(answer))
    assert (single.text, whole_calls(single)) == (whole.text, whole_calls(whole))
    if not whole.calls:
        assert whole.text == answer


def test_arguments_come_in_pieces() -> None:
    splitter = CallSplitter(call_format(HERMES), parameter_schemas(TOOLS))
    assert splitter.push('<tool_call>{"name": "python", "argum') == CallParts()
    assert splitter.push('ents": {"code": "pri').calls[0].name == "python"
    assert splitter.push("nt(1)").calls[0].arguments == "nt(1)"


def test_only_the_first_call_is_kept_where_calls_are_not_parallel() -> None:
    splitter = CallSplitter(call_format(HERMES), parameter_schemas(TOOLS), most=1)
    parts = splitter.push(HERMES_CALL + "\n" + HERMES_CALL) + splitter.push("more") + splitter.flush()
    assert len(whole_calls(parts)) == 1
    assert parts.text == ""
    assert splitter.is_full


def test_long_answers_take_linear_time() -> None:
    splitter = CallSplitter(GENERIC, parameter_schemas(TOOLS))
    splitter.push('{"name": "python", "arguments": {"code": "')
    for _ in range(20_000):
        splitter.push("x = 1\\n")
    splitter.push('"}}')
    splitter.flush()


@pytest.mark.parametrize(
    ("source", "sees"),
    [
        ("{{ messages[1].tool_calls[0].function.arguments | tojson }}", {"a": 1}),
        ("{{ '' + messages[1].tool_calls[0].function.arguments }}", '{"a": 1}'),
    ],
)
def test_arguments_are_objects_where_the_template_writes_json(source: str, sees: object) -> None:
    template = ChatTemplate(source, "", "")
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [{"role": "developer", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    adapted = template.adapt(messages)
    assert adapted[0] == {"role": "system", "content": "x"}
    assert adapted[1]["content"] == ""  # type: ignore[index]
    assert adapted[1]["tool_calls"][0]["function"]["arguments"] == sees  # type: ignore[index]


def test_formats_of_real_templates() -> None:
    folder = Path(os.environ.get("LLAMA_CPP", "llama.cpp")) / "models" / "templates"
    if not folder.is_dir():
        pytest.skip("LLAMA_CPP does not name a checkout of llama.cpp")
    starts = {
        "Qwen3-Coder": "<function=",
        "Qwen3.5-4B": "<function=",
        "Qwen-Qwen3-0.6B": "<tool_call>",
        "GLM-4.6": "<tool_call>",
        "openai-gpt-oss-120b": "<|channel|>",
        "deepseek-ai-DeepSeek-V3.1": CALL,
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "<tool_call>",
        "Mistral-Small-3.2-24B-Instruct-2506": "[TOOL_CALLS]",
        "meta-llama-Llama-3.3-70B-Instruct": "<|python_tag|>",
        "moonshotai-Kimi-K2": "<|tool_call_begin|>",
    }
    for name, start in starts.items():
        assert start in call_format((folder / f"{name}.jinja").read_text(encoding="utf-8")).starts, name
