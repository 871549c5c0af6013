"""The interface of a form of answers: llama-server's own, OpenAI's, and others."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from minillama.engine.result import Piece
from minillama.server.answers.generation import Generation
from minillama.server.http_errors import encode_json

Event = dict[str, object]


class AnswerFormat(Protocol):
    """Writes the answer of one request; made for each request."""

    end_of_stream: bytes  # bytes after the last event

    def whole(self, generations: Sequence[Generation]) -> object:
        """The JSON value of an answer without a stream."""
        ...

    def progress(self, generation: Generation) -> Iterable[Event]:
        """The events of a part of the prompt that was read."""
        ...

    def piece(self, generation: Generation, piece: Piece) -> Iterable[Event]:
        """The events of a piece, which the generation holds already."""
        ...

    def end(self, generation: Generation) -> Iterable[Event]:
        """The last events of a completion."""
        ...

    def error(self, error: Event) -> bytes:
        """The bytes of an error after the stream has begun."""
        ...

    def encode(self, event: Event) -> bytes:
        """The bytes of an event."""
        ...


def data_event(value: object) -> bytes:
    """A server-sent event with JSON data."""
    return b"data: " + encode_json(value) + b"\n\n"


def named_event(event: Event) -> bytes:
    """A server-sent event with the name that is its `type`."""
    return f"event: {event['type']}\n".encode() + data_event(event)


def prompt_progress(generation: Generation) -> dict[str, object]:
    """The value of `prompt_progress`."""
    stream, progress = generation.stream, generation.progress
    return {
        "total": stream.prompt_tokens,
        "cache": stream.cached_tokens,
        "processed": progress.processed,
        "time_ms": int(1000 * progress.seconds),
    }
