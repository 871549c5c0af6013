"""Anthropic's form of answers: `/v1/messages`.

A message is a list of blocks: thoughts, text, and one for each tool call. A stream opens and closes them one by one.
"""

import json
from collections.abc import Iterable, Sequence

from minillama.engine.result import Piece
from minillama.server.answers.answer_format import Event, named_event
from minillama.server.answers.generation import Generation
from minillama.server.answers.message_deltas import MessageCollector, MessageDelta, MessageParts, whole_message
from minillama.server.answers.openai_format import random_id


class AnthropicFormat:
    """Answers of `/v1/messages`; a request has one completion."""

    end_of_stream = b""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = random_id("msg_")
        self._messages = MessageCollector()
        self._block, self._blocks = "", 0  # the kind of the open block, and the number of all

    def whole(self, generations: Sequence[Generation]) -> object:
        """One message."""
        generation = generations[0]
        message = whole_message(generation)
        return {
            **self._envelope(_content(message)),
            **_stop(generation, message),
            "usage": {**_input_usage(generation), "output_tokens": len(generation.pieces)},
        }

    def progress(self, generation: Generation) -> Iterable[Event]:
        """Nothing: the form has no progress."""
        return []

    def piece(self, generation: Generation, piece: Piece) -> Iterable[Event]:
        """The start before the first token; then the changes."""
        events: list[Event] = []
        if len(generation.pieces) == 1:
            start = {"stop_reason": None, "stop_sequence": None}
            usage = {**_input_usage(generation), "output_tokens": 0}
            events.append({"type": "message_start", "message": {**self._envelope([]), **start, "usage": usage}})
        for change in self._messages.push(generation, piece):
            events += self._change(change)
        return events

    def end(self, generation: Generation) -> Iterable[Event]:
        """The end of the open block, then the reason of the end and the usage."""
        message = self._messages.of(generation)
        events = [event for change in message.flush() for event in self._change(change)]
        events += self._close()
        usage = {"output_tokens": len(generation.pieces)}
        events.append({"type": "message_delta", "delta": _stop(generation, message), "usage": usage})
        events.append({"type": "message_stop"})
        return events

    def error(self, error: Event) -> bytes:
        """An event with `error`."""
        return named_event({"type": "error", "error": error})

    def encode(self, event: Event) -> bytes:
        """A server-sent event with a name."""
        return named_event(event)

    def _envelope(self, content: list[Event]) -> Event:
        return {"id": self._id, "type": "message", "role": "assistant", "content": content, "model": self._model}

    def _change(self, change: MessageDelta) -> list[Event]:
        if change.reasoning_content:
            opened = self._open("thinking", {"type": "thinking", "thinking": ""})
            return [*opened, self._delta("thinking_delta", "thinking", change.reasoning_content)]
        if change.call is None:
            return [*self._open("text", {"type": "text", "text": ""}), self._delta("text_delta", "text", change.text)]
        call, events = change.call, []
        if call.name:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            events += self._open(f"call {call.index}", block)
        if call.arguments:
            events.append(self._delta("input_json_delta", "partial_json", call.arguments))
        return events

    def _open(self, kind: str, block: Event) -> list[Event]:
        """Begin a block, unless it is the open one."""
        if kind == self._block:
            return []
        events = self._close()
        self._block = kind
        self._blocks += 1
        return [*events, {"type": "content_block_start", "index": self._blocks - 1, "content_block": block}]

    def _close(self) -> list[Event]:
        """End the open block; one of thoughts has a signature, which is empty here."""
        kind, self._block = self._block, ""
        if not kind:
            return []
        signature = [self._delta("signature_delta", "signature", "")] if kind == "thinking" else []
        return [*signature, {"type": "content_block_stop", "index": self._blocks - 1}]

    def _delta(self, kind: str, name: str, text: str) -> Event:
        return {"type": "content_block_delta", "index": self._blocks - 1, "delta": {"type": kind, name: text}}


def _content(message: MessageParts) -> list[Event]:
    blocks: list[Event] = []
    if message.reasoning_content:
        blocks.append({"type": "thinking", "thinking": message.reasoning_content, "signature": ""})
    if message.text:
        blocks.append({"type": "text", "text": message.text})
    for call in message.calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)})
    return blocks


def _arguments(text: str) -> object:
    """The arguments of a call, empty where the answer ended within them."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _stop(generation: Generation, message: MessageParts) -> Event:
    reasons = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
    return {
        "stop_reason": reasons[message.finish_reason(generation)],
        "stop_sequence": generation.stop_string or None,
    }


def _input_usage(generation: Generation) -> Event:
    cached = generation.stream.cached_tokens
    return {"cache_read_input_tokens": cached, "input_tokens": generation.stream.prompt_tokens - cached}
