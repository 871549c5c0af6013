"""Requests of Anthropic's messages and OpenAI's responses as chat requests: llama.cpp's vectors, and wild inputs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.server.http_errors import RequestError
from minillama.server.requests.anthropic_input import anthropic_to_chat
from minillama.server.requests.responses_input import responses_to_chat

USER = {"role": "user", "content": "What's the weather?"}
USE = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"location": "Paris"}}
CALL = {
    "id": "t1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": json.dumps({"location": "Paris"})},
}


def anthropic(*messages: Any, **more: Any) -> dict[str, Any]:
    return anthropic_to_chat({"messages": list(messages), **more})


def test_a_conversation_with_tools() -> None:
    thinking = {"type": "thinking", "thinking": "I should ask.", "signature": "x"}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Sunny"}]}
    text = {"type": "text", "text": "Here:"}
    chat = anthropic(
        USER, {"role": "assistant", "content": [thinking, USE]}, {"role": "user", "content": [text, result]}
    )
    assert chat["messages"] == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "I should ask."},
        {"role": "user", "content": [text]},
        {"role": "tool", "tool_call_id": "t1", "content": "Sunny"},
    ]


def test_fields_of_anthropic() -> None:
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
    chat = anthropic(
        USER,
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: v; cch=a5145;You are"},
            {"type": "text", "text": "."},
        ],
        max_tokens=5,
        stop_sequences=["END"],
        top_k=3,
        tools=[tool],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 50},
        metadata={"user_id": "u"},
    )
    assert chat["messages"][0]["content"] == "x-anthropic-billing-header: v; cch=fffff;You are."
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    expected = {
        "max_tokens": 5,
        "stop": ["END"],
        "top_k": 3,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "thinking_budget_tokens": 50,
    }
    assert {name: value for name, value in chat.items() if name != "messages"} == expected


def test_without_messages_there_is_an_empty_one() -> None:
    assert anthropic()["messages"] == [{"role": "user", "content": ""}]
    with pytest.raises(RequestError, match="'messages' is required"):
        anthropic_to_chat({"max_tokens": 5})


@pytest.mark.parametrize("inside", [False, True])
def test_images_are_refused(inside: bool) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    if inside:
        image = {"type": "tool_result", "tool_use_id": "t1", "content": [image]}
    with pytest.raises(RequestError, match="image input is not supported"):
        anthropic({"role": "user", "content": [image]})


def test_a_conversation_of_responses() -> None:
    chat = responses_to_chat(
        {
            "input": [
                {"type": "message", "role": "user", "content": "hi wassup"},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hey!"}]},
                {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "42"},
                {"role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
            ],
            "instructions": "You are a helpful assistant.",
            "model": "gpt-5-mini",
            "stream": False,
            "reasoning": {"effort": "medium"},
            "max_output_tokens": 100,
        }
    )
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    hey = {"role": "assistant", "content": [{"type": "text", "text": "Hey!"}], "reasoning_content": "Hm."}
    assert chat.pop("messages") == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "hi wassup"}]},
        {**hey, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
    ]
    assert chat == {"model": "gpt-5-mini", "stream": False, "reasoning_effort": "medium", "max_tokens": 100}


def test_only_functions_are_tools_of_responses() -> None:
    function = {"name": "get_weather", "parameters": {"type": "object"}}
    tools = [{"type": "web_search"}, {"type": "function", **function}, {"type": "mcp", "server_label": "s"}]
    chat = responses_to_chat({"input": "Hello", "tools": tools})
    assert chat["tools"] == [{"type": "function", "function": {"strict": True, **function}}]
    assert "tools" not in responses_to_chat({"input": "Hello", "tools": [{"type": "web_search"}]})


def test_structured_output_of_responses() -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    chat = responses_to_chat({"input": "Hello", "text": {"format": form}})
    assert chat["response_format"] == {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "text", "user", "assistant", "tool_use"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "role", "content", "text", "input", "messages", "tools", "id", "name", "call_id", "output",
             "system", "summary", "arguments", "tool_choice", "thinking", "source", "reasoning", "format"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["messages", "system", "tools", "tool_choice", "input", "text"]), JSON))
def test_any_json_is_converted_or_refused(body: dict[str, Any]) -> None:
    for convert in (anthropic_to_chat, responses_to_chat):
        try:
            chat = convert(body)
        except RequestError as error:
            assert error.message
        else:
            assert isinstance(chat["messages"], list)
            json.dumps(chat)
