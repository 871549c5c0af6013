"""The answers of Anthropic's messages and OpenAI's responses: blocks open and close in order; a stream is the whole."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from minillama.engine.result import Piece
from minillama.server.answers.anthropic_format import AnthropicFormat
from minillama.server.answers.message_deltas import new_message, whole_message
from minillama.server.answers.responses_format import ResponsesFormat
from minillama.tokenizer.chat.tool_calls.call_formats import GENERIC
from minillama.tokenizer.chat.tool_calls.call_splitter import CallSplitter, parameter_schemas

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
ANSWERS = {
    "text": ("", "Hello there"),
    "thoughts": ("I think", "Hello"),
    "call": ("", CALL),
    "all": ("I think", f"Let me see: {CALL}\n{CALL}"),
}


def generation(thoughts: str, text: str, *, finish_reason: str = "stop", most: int | None = None) -> Any:
    """A finished completion whose pieces have three characters each."""
    pieces = [Piece("", 0, 0.0, 0.1, thoughts[at : at + 3]) for at in range(0, len(thoughts), 3)]
    pieces += [Piece(text[at : at + 3], 0, 0.0, 0.1) for at in range(0, len(text), 3)]
    chat = SimpleNamespace(calls=lambda: CallSplitter(GENERIC, parameter_schemas(TOOLS), most))
    usage = {"prompt_tokens": 5, "completion_tokens": len(pieces), "total_tokens": 5 + len(pieces)}
    return SimpleNamespace(
        index=0,
        request=SimpleNamespace(chat=chat, is_on=lambda name: False),
        stream=SimpleNamespace(prompt_tokens=5, cached_tokens=2, cancel=lambda: None),
        pieces=pieces,
        finish_reason=finish_reason,
        stop_string="",
        usage={**usage, "prompt_tokens_details": {"cached_tokens": 2}},
        timings=dict,
    )


def events_of(form: Any, done: Any) -> list[dict[str, Any]]:
    """All events of a stream of the completion."""
    pieces, events = list(done.pieces), []
    done.pieces = []
    for piece in pieces:
        done.pieces.append(piece)
        events += form.piece(done, piece)
    events += form.end(done)
    for event in events:
        name, data = form.encode(event).decode().removesuffix("\n\n").split("\n")
        assert name == f"event: {event['type']}"
        assert json.loads(data.removeprefix("data: ")) == event
    return events


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_of_anthropic_is_the_whole_message(name: str) -> None:
    done = generation(*ANSWERS[name])
    whole: Any = AnthropicFormat("m").whole([done])
    events = events_of(AnthropicFormat("m"), done)
    assert [events[0]["type"], events[-2]["type"], events[-1]["type"]] == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events[1:-2]:
        kind = event["type"]
        if kind == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
            is_open = True
        elif kind == "content_block_delta":
            assert is_open
            assert event["index"] == len(blocks) - 1
            delta = {k: v for k, v in event["delta"].items() if k != "type"}
            [(field, text)] = delta.items()
            blocks[-1][field] = blocks[-1].get(field, "") + text
        else:
            assert kind == "content_block_stop"
            is_open = False
    assert not is_open
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block.pop("partial_json"))

    def without_ids(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in block.items() if k != "id"} for block in found]

    assert without_ids(blocks) == without_ids(whole["content"])
    assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"]
    assert whole["stop_reason"] == ("tool_use" if CALL in ANSWERS[name][1] else "end_turn")
    assert whole["usage"] == {"cache_read_input_tokens": 2, "input_tokens": 3, "output_tokens": len(done.pieces)}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_of_responses_is_the_whole_response(name: str) -> None:
    done = generation(*ANSWERS[name])
    whole: Any = ResponsesFormat("m").whole([done])
    events = events_of(ResponsesFormat("m"), done)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    completed = events[-1]["response"]
    assert completed["usage"] == whole["usage"]
    texts: dict[int, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["output_index"]
            texts[place] = texts.get(place, "") + event["delta"]
    written = [
        item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        for item in completed["output"]
    ]
    assert list(texts.values()) == written
    done_items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done_items == completed["output"]
    assert [item["type"] for item in completed["output"]] == [item["type"] for item in whole["output"]]
    assert written == [
        item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"] for item in whole["output"]
    ]


def test_a_truncated_answer_ends_with_max_tokens() -> None:
    whole: Any = AnthropicFormat("m").whole([generation("", CALL[:-20], finish_reason="length")])
    assert whole["stop_reason"] == "max_tokens"
    assert whole["content"][0]["input"] == {}


def test_calls_have_ids_from_the_first_piece_on() -> None:
    done = generation("", f"{CALL}\n{CALL}")
    message = new_message(done)
    changes = [change for piece in done.pieces for change in message.push(piece)] + message.flush()
    first = [change.call.id for change in changes if change.call is not None and change.call.name]
    assert [len(each) for each in first] == [9, 9]
    assert [call.id for call in message.calls] == first
    assert len(set(first)) == 2


def test_one_call_ends_an_answer_without_parallel_calls() -> None:
    message = whole_message(generation("", f"{CALL}\n{CALL}", most=1, finish_reason="length"))
    assert len(message.calls) == 1
    assert message.finish_reason(generation("", "", finish_reason="length")) == "tool_calls"
