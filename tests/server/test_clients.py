"""The clients of a server: OpenAI's own package, and Anthropic's messages over HTTP, with a real model."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_process import Server

pytestmark = pytest.mark.slow

openai = pytest.importorskip("openai")

THINKING = "{{ messages[-1].content }}{% if tools %}<tool_call>{% endif %}{% if enable_thinking %}<think>{% endif %}"
MESSAGES = [{"role": "user", "content": "Once upon a time"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "unit", "days"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "look_around"}}]


@pytest.fixture(scope="module")
def server(builtin_model: Path) -> Iterator[Server]:
    words = ["--embedding", "--pooling", "mean", "--chat-template", THINKING, "--chat-template-kwargs",
             '{"enable_thinking": false}', "-c", "2048", "-np", "2", "-t", "1"]  # fmt: skip
    with Server("-m", str(builtin_model), *words) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def check_weather(arguments: str) -> None:
    found = json.loads(arguments)
    assert list(found) == ["city", "unit", "days"]
    assert len(found["city"]) <= 8 and found["unit"] in ("celsius", "kelvin") and 1 <= found["days"] <= 7


def test_a_chat_and_its_stream(client: Any) -> None:
    options = {"model": "any", "messages": MESSAGES, "max_tokens": 12, "seed": 1}
    whole = client.chat.completions.create(**options)
    assert whole.choices[0].message.content and whole.usage.completion_tokens == 12
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content and chunks[-1].usage.completion_tokens == 12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_required_call(client: Any, seed: int) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    options = {"model": "any", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 300, "seed": seed,
               "parallel_tool_calls": False}  # fmt: skip
    message = client.chat.completions.create(**options, tool_choice=choice).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "get_weather" and not message.content
    check_weather(call.function.arguments)
    answer = client.chat.completions.create(**options, tool_choice="required")
    assert answer.choices[0].finish_reason == "tool_calls" and len(answer.choices[0].message.tool_calls) == 1


def test_calls_in_a_stream(client: Any) -> None:
    options = {"model": "any", "messages": MESSAGES, "tools": TOOLS[:1], "max_tokens": 300, "seed": 4}
    with client.chat.completions.create(
        **options, tool_choice="required", parallel_tool_calls=False, stream=True
    ) as chunks:
        deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "get_weather" and deltas[0].id
    check_weather("".join(delta.function.arguments or "" for delta in deltas))


def test_several_calls(client: Any) -> None:
    """A random model may call many times; each whole call keeps the schema."""
    options = {"model": "any", "messages": MESSAGES, "tools": TOOLS[:1], "max_tokens": 200, "seed": 5, "temperature": 2}
    choice = client.chat.completions.create(**options, tool_choice="required").choices[0]
    whole = choice.message.tool_calls if choice.finish_reason == "tool_calls" else choice.message.tool_calls[:-1]
    for call in whole:
        check_weather(call.function.arguments)


def test_free_choice(client: Any) -> None:
    options = {"model": "any", "messages": MESSAGES, "max_tokens": 8, "seed": 1}
    free = client.chat.completions.create(**options, tools=TOOLS)
    none = client.chat.completions.create(**options, tools=TOOLS, tool_choice="none")
    assert free.choices[0].message.content == none.choices[0].message.content


def test_structured_output(client: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": WEATHER["parameters"]}}
    answer = client.chat.completions.create(
        model="any", messages=MESSAGES, response_format=form, max_tokens=300, seed=1, temperature=0.5
    )
    assert answer.choices[0].finish_reason == "stop"
    check_weather(answer.choices[0].message.content)


def test_an_error(client: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 2}}}
    tools = [{"type": "function", "function": {"name": "half", "strict": True, "parameters": schema}}]
    with pytest.raises(openai.BadRequestError, match=r"function 'half'.*multipleOf"):
        client.chat.completions.create(model="any", messages=MESSAGES, tools=tools, max_tokens=4)


def test_embeddings(client: Any) -> None:
    found = client.embeddings.create(model="any", input=["Once", "upon a time"], encoding_format="float")
    first, second = (each.embedding for each in found.data)
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-5) and len(first) == len(second)
    packed = client.embeddings.with_raw_response.create(model="any", input="Once", encoding_format="base64")
    data = base64.b64decode(json.loads(packed.text)["data"][0]["embedding"])
    assert struct.unpack(f"<{len(first)}f", data) == pytest.approx(first, abs=1e-6)


def test_responses(client: Any) -> None:
    answer = client.responses.create(model="any", input="Once upon a time", max_output_tokens=12)
    assert answer.output_text and answer.usage.output_tokens == 12
    tools = [{"type": "function", **WEATHER}]
    called = client.responses.create(model="any", input="Hi", tools=tools, tool_choice="required",
                                     parallel_tool_calls=False, max_output_tokens=300)  # fmt: skip
    (call,) = [item for item in called.output if item.type == "function_call"]
    check_weather(call.arguments)


def test_anthropic_messages(server: Server) -> None:
    tools = [{"name": "get_weather", "description": "", "input_schema": WEATHER["parameters"]}]
    body = {"model": "any", "max_tokens": 300, "messages": MESSAGES, "tools": tools}
    choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    answer = httpx.post(f"{server.url}/v1/messages", json={**body, "tool_choice": choice}, timeout=60).json()
    (block,) = answer["content"]
    assert answer["stop_reason"] == "tool_use" and block["type"] == "tool_use"
    check_weather(json.dumps(block["input"]))


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_of_thoughts(server: Server, stream: bool) -> None:
    body = {"model": "any", "max_tokens": 24, "messages": MESSAGES, "stream": stream,
            "chat_template_kwargs": {"enable_thinking": True},
            "thinking": {"type": "enabled", "budget_tokens": 5}}  # fmt: skip
    answer = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60)
    if not stream:
        blocks = answer.json()["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text"]
        assert answer.json()["usage"]["output_tokens"] == 24
        count = httpx.post(f"{server.url}/tokenize", json={"content": " " + blocks[0]["thinking"]}, timeout=60).json()
        assert len(count["tokens"]) <= 7
        return
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    kinds = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert kinds == ["thinking", "text"]
