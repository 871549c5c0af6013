"""Fields that bind an answer: grammars of the command, tool_choice, budgets of thoughts."""

import json
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from call_texts import call_tokenizer

from minillama.engine.grammar import GrammarCompiler, GrammarState, LazyState
from minillama.errors import OptionError
from minillama.sampling import Sampling
from minillama.server.http_errors import RequestError
from minillama.server.requests.chat_input import read_chat
from minillama.server.requests.generation_request import GenerationRequest, read_request
from minillama.server.settings import ChatSettings, ServerSettings
from minillama.tokenizer.chat.chat_template import ChatTemplate

LLM = SimpleNamespace(
    tokenizer=call_tokenizer(),
    sampling=Sampling,
    draft=None,
    requests=SimpleNamespace(grammars=GrammarCompiler(call_tokenizer())),
)
ADD = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
HALF = {"name": "half", "parameters": {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 2}}}}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
MESSAGES = [{"role": "user", "content": "Hi"}]
HERMES = ChatTemplate("{{ messages[0].content }}<tool_call>", "", "")
THINKING = ChatTemplate("<tool_call>{% if enable_thinking %}<think>\n{% endif %}", "", "")


def function(tool: dict, **more: object) -> dict:
    return {"type": "function", "function": {**tool, **more}}


def chat(template: ChatTemplate, body: Mapping[str, object], **settings: object) -> GenerationRequest:
    chosen = ServerSettings(**settings)
    found = read_chat({"messages": MESSAGES, **body}, template, chosen.chat)
    return read_request(found.fields, (1, 2), LLM, chosen, found.format, found.shape)


def fits(request: GenerationRequest, text: str) -> bool:
    """Whether a text is a whole answer."""
    state = request.constraint.grammar
    for token in call_tokenizer().encode(text):
        if not state.allows(token):
            return False
        state = state.accept(token)
    return state.is_complete


class TestToolChoice:
    @pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}},
                                        {"type": "function", "name": "add"}])  # fmt: skip
    def test_a_call_is_required(self, choice: object) -> None:
        tools = [function(ADD), function({"name": "other"})]
        request = chat(HERMES, {"tools": tools, "tool_choice": choice})
        assert fits(request, CALL) and not fits(request, "Hello") and not fits(request, CALL.replace("1", '"1"'))
        assert fits(request, '<tool_call>{"name": "other", "arguments": {}}</tool_call>') == (choice == "required")
        assert fits(request, CALL + CALL)
        single = chat(HERMES, {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False})
        assert fits(single, CALL) and not fits(single, CALL + CALL)

    def test_allowed_tools(self) -> None:
        allowed = {"mode": "required", "tools": [{"type": "function", "name": "add"}]}
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        request = chat(HERMES, {"tools": [function(ADD), function({"name": "other"})], "tool_choice": choice})
        assert fits(request, CALL) and not fits(request, CALL.replace("add", "other"))

    def test_auto_waits_for_the_tag(self) -> None:
        request = chat(HERMES, {"tools": [function(ADD), function(HALF)]})
        assert isinstance(request.constraint.grammar, LazyState)
        assert fits(request, "Hello") and fits(request, "Hello " + CALL)
        assert not fits(request, CALL.replace("1", '"1"')) and not fits(request, CALL.replace("add", "subtract"))
        assert fits(request, CALL.replace("add", "half"))  # its schema cannot be kept
        assert chat(HERMES, {"tools": [function(ADD)], "tool_choice": "none"}).constraint.grammar is None
        assert chat(ChatTemplate("x", "", ""), {"tools": [function(ADD)]}).constraint.grammar is None

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"tools": [function(HALF)], "tool_choice": "required"}, "function 'half'"),
            ({"tools": [function(HALF, strict=True)]}, "function 'half'"),
            ({"tool_choice": "required"}, "there is no function in tools"),
            ({"tools": [function(ADD)], "tool_choice": {"function": {"name": "x"}}}, "which is not in tools"),
            ({"tools": [function(ADD)], "tool_choice": {"function": {}}}, "Invalid tool_choice"),
            ({"tools": [function(ADD)], "tool_choice": "always"}, "Invalid tool_choice"),
            ({"tools": [function(ADD)], "grammar": 'root ::= "a"'}, "Cannot use custom grammar"),
        ],
    )
    def test_refused(self, body: dict, message: str) -> None:
        with pytest.raises((RequestError, OptionError), match=message):
            chat(HERMES, body)

    def test_thoughts_come_first(self) -> None:
        body = {"tools": [function(ADD)], "tool_choice": "required"}
        thinking = chat(THINKING, body)
        assert fits(thinking, f"a</think>\n\n{CALL}") and not fits(thinking, CALL)
        silent = chat(THINKING, {**body, "chat_template_kwargs": {"enable_thinking": False}})
        assert fits(silent, CALL) and not fits(silent, f"<think>a</think>{CALL}")

    def test_a_form_of_the_answer(self) -> None:
        form = {"type": "json_schema", "json_schema": {"schema": {"type": "integer"}}}
        request = chat(THINKING, {"response_format": form, "tools": [function(ADD)]})
        assert fits(request, "a</think>12") and not fits(request, "a</think>x")
        assert chat(HERMES, {"response_format": form}).constraint.gbnf.startswith("integral-part ::= ")


class TestCommand:
    def test_a_grammar_for_requests_without_one(self) -> None:
        grammar = 'root ::= "ab"'
        assert chat(HERMES, {}, grammar=grammar).constraint.gbnf == grammar
        assert chat(HERMES, {"grammar": ""}, grammar=grammar).constraint.grammar is None
        assert chat(HERMES, {"json_schema": {"const": 1}}, grammar=grammar).constraint.gbnf != grammar
        request = read_request({}, (1,), LLM, ServerSettings(grammar=grammar))
        assert isinstance(request.constraint.grammar, GrammarState)

    @pytest.mark.parametrize(
        ("body", "tokens"),
        [
            ({}, 7),
            ({"reasoning_budget_tokens": 3}, 3),
            ({"thinking_budget_tokens": 3}, 3),
            ({"reasoning_budget": 0}, 0),
            ({"reasoning_budget_tokens": -1, "thinking_budget_tokens": 3}, 7),
        ],
    )
    def test_budgets(self, body: dict, tokens: int) -> None:
        settings = ChatSettings(reasoning_budget=7, reasoning_budget_message="!")
        thinking = chat(THINKING, body, chat=settings).constraint.thinking
        assert (thinking.tokens, thinking.is_open, thinking.begun, thinking.message) == (tokens, True, "\n", "!")
        assert (thinking.start, thinking.end) == ("<think>", "</think>")

    def test_no_budget(self) -> None:
        assert chat(THINKING, {}).constraint.thinking is None
        assert chat(HERMES, {"reasoning_budget_tokens": 5}).constraint.thinking is None  # a template without thoughts
        assert chat(THINKING, {"tools": [function(ADD)]}).constraint.thinking.tokens == -1  # to wait for their end

    def test_own_tags_of_a_completion(self) -> None:
        tags = {"reasoning_budget_start_tag": "<a>", "reasoning_budget_end_tags": ["</a>"]}
        body = {"reasoning_budget_tokens": 5, "reasoning_budget_message": "x", "generation_prompt": "y<a>", **tags}
        thinking = read_request(body, (1,), LLM, ServerSettings()).constraint.thinking
        assert (thinking.start, thinking.end, thinking.is_open, thinking.message) == ("<a>", "</a>", True, "x")

    @pytest.mark.parametrize("body", [{"reasoning_budget_tokens": -2}, {"reasoning_budget_tokens": "3"},
                                      {"reasoning_budget_message": 3, "reasoning_budget_tokens": 3}])  # fmt: skip
    def test_wrong_budgets(self, body: dict) -> None:
        with pytest.raises(RequestError):
            chat(THINKING, body)


def test_a_schema_is_not_shared_between_functions() -> None:
    """Each function has its own definitions."""

    def one(name: str, kind: str) -> dict:
        properties = {"a": {"$ref": "#/$defs/x"}}
        schema = {"type": "object", "properties": properties, "required": ["a"], "$defs": {"x": {"type": kind}}}
        return function({"name": name, "parameters": schema})

    request = chat(HERMES, {"tools": [one("i", "integer"), one("s", "string")], "tool_choice": "required"})
    for name, value in (("i", 1), ("s", "1")):
        text = f"<tool_call>{json.dumps({'name': name, 'arguments': {'a': value}})}</tool_call>"
        assert fits(request, text)
        assert not fits(request, text.replace(f'"{name}"', '"s"' if name == "i" else '"i"'))
