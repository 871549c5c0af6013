"""The message of a chat answer while it comes: thoughts, text and tool calls."""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from minillama.engine.result import Piece
from minillama.server.answers.generation import Generation
from minillama.tokenizer.chat.tool_calls.call_parts import CallCollector, CallDelta, CallParts, ToolCall
from minillama.tokenizer.chat.tool_calls.call_splitter import CallSplitter

ID_LENGTH = 9  # Mistral's templates take no other one
LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class MessageDelta:
    """A change of a message: thoughts, text, or a piece of a call."""

    reasoning_content: str = ""
    text: str = ""
    call: CallDelta | None = None


@dataclass
class MessageParts:
    """Cuts pieces into changes, and collects the whole message.

    splitter: of tool calls; None for a request without tools. The first change of a call has its id.
    """

    splitter: CallSplitter | None = None
    make_id: Callable[[], str] = field(default=lambda: "".join(secrets.choice(LETTERS) for _ in range(ID_LENGTH)))
    text: str = ""
    reasoning_content: str = ""
    _collector: CallCollector = field(default_factory=CallCollector)

    @property
    def calls(self) -> list[ToolCall]:
        """The calls so far."""
        return self._collector.calls

    @property
    def is_full(self) -> bool:
        """Whether the answer has all the calls that it may have."""
        return self.splitter is not None and self.splitter.is_full

    def finish_reason(self, generation: Generation) -> str:
        """OpenAI's name of the reason of the end."""
        reason = generation.finish_reason
        return "tool_calls" if self.calls and (reason == "stop" or self.is_full) else reason

    def push(self, piece: Piece) -> list[MessageDelta]:
        """The changes by a piece."""
        thoughts = [MessageDelta(reasoning_content=piece.reasoning_content)] if piece.reasoning_content else []
        self.reasoning_content += piece.reasoning_content
        parts = CallParts(piece.text) if self.splitter is None else self.splitter.push(piece.text)
        return thoughts + self._changes(parts)

    def flush(self) -> list[MessageDelta]:
        """The changes that were held back, when the answer has ended."""
        return [] if self.splitter is None else self._changes(self.splitter.flush())

    def _changes(self, parts: CallParts) -> list[MessageDelta]:
        self.text += parts.text
        changes = [MessageDelta(text=parts.text)] if parts.text else []
        for delta in parts.calls:
            if delta.name and not delta.id:
                delta = CallDelta(delta.index, delta.name, delta.arguments, self.make_id())
            elif delta.id and not delta.name:
                continue  # the format has the id at the end, but the call has one already
            self._collector.add(delta)
            changes.append(MessageDelta(call=delta))
        return changes


@dataclass
class MessageCollector:
    """The messages of the completions of one request."""

    messages: dict[int, MessageParts] = field(default_factory=dict)

    def of(self, generation: Generation) -> MessageParts:
        """The message of a completion, for a stream."""
        return self.messages.setdefault(generation.index, new_message(generation))

    def push(self, generation: Generation, piece: Piece) -> list[MessageDelta]:
        """The changes by a piece; a completion that has all its calls ends."""
        message = self.of(generation)
        changes = message.push(piece)
        if message.is_full:
            generation.stream.cancel()
        return changes


def new_message(generation: Generation) -> MessageParts:
    """An empty message, with the splitter of the request."""
    calls = generation.request.chat.calls
    return MessageParts(calls() if calls is not None else None)


def whole_message(generation: Generation) -> MessageParts:
    """The message of a completion that has ended."""
    message = new_message(generation)
    for piece in generation.pieces:
        message.push(piece)
    message.flush()
    return message
