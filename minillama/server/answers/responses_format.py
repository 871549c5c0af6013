"""The form of answers of OpenAI's responses API: `/v1/responses`.

An answer is a list of items: reasoning, a message, and one for each tool call. A stream opens and closes them one by
one.
"""

from collections.abc import Iterable, Sequence

from minillama.engine.result import Piece
from minillama.server.answers.answer_format import Event, named_event, prompt_progress
from minillama.server.answers.generation import Generation, unix_time
from minillama.server.answers.message_deltas import MessageCollector, MessageDelta, whole_message
from minillama.server.answers.openai_format import random_id
from minillama.tokenizer.chat.tool_calls.call_parts import ToolCall


class ResponsesFormat:
    """Answers of `/v1/responses`; a request has one completion."""

    end_of_stream = b""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id, self._message_id, self._reasoning_id = map(random_id, ("resp_", "msg_", "rs_"))
        self._created_at = unix_time()
        self._messages = MessageCollector()
        self._events = 0  # sent so far
        self._kind = ""  # of the open item
        self._text = ""  # of the open item
        self._call = ToolCall("")
        self._items: list[Event] = []  # closed ones

    def whole(self, generations: Sequence[Generation]) -> object:
        """One response with all items."""
        message = whole_message(generations[0])
        items = [self._reasoning(message.reasoning_content)] if message.reasoning_content else []
        items += [self._message(message.text)] if message.text else []
        items += [_call_item(call) for call in message.calls]
        return self._response(generations[0], items) | {"completed_at": unix_time()}

    def progress(self, generation: Generation) -> Iterable[Event]:
        """The start, and an event with `prompt_progress`."""
        events = self._start() or [self._numbered("response.in_progress", response=self._begun())]
        events[-1]["prompt_progress"] = prompt_progress(generation)
        return events

    def piece(self, generation: Generation, piece: Piece) -> Iterable[Event]:
        """The start before the first token; then the changes."""
        events = self._start()
        for change in self._messages.push(generation, piece):
            events += self._change(change)
        if events and generation.request.is_on("timings_per_token"):
            events[-1]["timings"] = generation.timings()
        return events

    def end(self, generation: Generation) -> Iterable[Event]:
        """The end of the open item, and the whole response."""
        rest = self._messages.of(generation).flush()
        events = [*self._start(), *(event for change in rest for event in self._change(change)), *self._close()]
        completed = self._numbered("response.completed", response=self._response(generation, self._items))
        return [*events, completed | {"timings": generation.timings()}]

    def error(self, error: Event) -> bytes:
        """An event with `error`."""
        return named_event({"type": "error", "error": error, **error, "sequence_number": self._events})

    def encode(self, event: Event) -> bytes:
        """A server-sent event with a name."""
        return named_event(event)

    def _start(self) -> list[Event]:
        """The two events before all others; nothing after them."""
        if self._events:
            return []
        kinds = ("response.created", "response.in_progress")
        return [self._numbered(kind, response=self._begun()) for kind in kinds]

    def _begun(self) -> Event:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "status": "in_progress",
            "model": self._model,
            "output": [],
        }

    def _response(self, generation: Generation, items: list[Event]) -> Event:
        usage = generation.usage
        tokens = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
        }
        return {**self._begun(), "status": "completed", "output": items, "usage": tokens}

    def _numbered(self, kind: str, **values: object) -> Event:
        self._events += 1
        return {"type": kind, "sequence_number": self._events - 1, **values}

    def _change(self, change: MessageDelta) -> list[Event]:
        if change.reasoning_content:
            opened = self._open("reasoning")
            return [*opened, self._delta("reasoning_text", self._reasoning_id, change.reasoning_content)]
        if change.call is None:
            return [*self._open("message"), self._delta("output_text", self._message_id, change.text)]
        call, events = change.call, []
        if call.name:
            closed = self._close()  # of the call before
            self._call = ToolCall(call.name, "", call.id)
            events += [*closed, *self._open("call")]
        if call.arguments:
            events.append(self._delta("function_call_arguments", f"fc_{self._call.id}", call.arguments))
        return events

    def _open(self, kind: str) -> list[Event]:
        """Begin an item, unless it is the open one."""
        if kind == self._kind:
            return []
        events = self._close()
        self._kind = kind
        item = self._item() | {"status": "in_progress"}
        item |= {"arguments": ""} if kind == "call" else {"content": []}
        events.append(self._numbered("response.output_item.added", output_index=len(self._items), item=item))
        if kind == "message":
            part = {"type": "output_text", "text": "", "annotations": []}
            events.append(self._in_item("response.content_part.added", self._message_id, content_index=0, part=part))
        return events

    def _close(self) -> list[Event]:
        """End the open item with all of its text."""
        if not self._kind:
            return []
        events, item = [], self._item()
        if self._kind == "message":
            kind, part = "response.output_text.done", _text_part(self._text)
            events.append(self._in_item(kind, self._message_id, content_index=0, text=self._text))
            events.append(self._in_item("response.content_part.done", self._message_id, content_index=0, part=part))
        elif self._kind == "call":
            kind = "response.function_call_arguments.done"
            events.append(self._in_item(kind, f"fc_{self._call.id}", arguments=self._text, name=self._call.name))
        events.append(self._numbered("response.output_item.done", output_index=len(self._items), item=item))
        self._items.append(item)
        self._kind = self._text = ""
        return events

    def _delta(self, name: str, item_id: str, text: str) -> Event:
        self._text += text
        place = {} if name == "function_call_arguments" else {"content_index": 0}
        return self._in_item(f"response.{name}.delta", item_id, **place, delta=text)

    def _in_item(self, kind: str, item_id: str, **values: object) -> Event:
        return self._numbered(kind, item_id=item_id, output_index=len(self._items), **values)

    def _item(self) -> Event:
        """The open item with its text so far."""
        if self._kind == "reasoning":
            return self._reasoning(self._text)
        if self._kind == "message":
            return self._message(self._text)
        return _call_item(ToolCall(self._call.name, self._text, self._call.id))

    def _reasoning(self, text: str) -> Event:
        content = [{"type": "reasoning_text", "text": text}]
        own: Event = {"summary": [], "content": content, "encrypted_content": ""}
        return {"id": self._reasoning_id, "type": "reasoning", "status": "completed", **own}

    def _message(self, text: str) -> Event:
        own: Event = {"role": "assistant", "content": [_text_part(text)]}
        return {"id": self._message_id, "type": "message", "status": "completed", **own}


def _text_part(text: str) -> Event:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _call_item(call: ToolCall) -> Event:
    own: Event = {"arguments": call.arguments, "call_id": f"call_{call.id}", "name": call.name}
    return {"id": f"fc_{call.id}", "type": "function_call", "status": "completed", **own}
