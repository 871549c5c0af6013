"""OpenAI's form of answers: `/v1/completions` and `/v1/chat/completions`."""

import secrets
import string
from collections.abc import Iterable, Sequence

from minillama.engine.result import Piece
from minillama.server.answers.answer_format import Event, data_event, prompt_progress
from minillama.server.answers.generation import Generation, unix_time
from minillama.server.answers.message_deltas import MessageCollector, MessageDelta, MessageParts, whole_message
from minillama.server.answers.native_format import NativeFormat
from minillama.server.answers.token_probs import shown_pieces, token_probs
from minillama.server.model_host import BUILD_INFO
from minillama.tokenizer import Tokenizer

_LETTERS = string.digits + string.ascii_letters


def random_id(prefix: str) -> str:
    """An id of 32 random characters."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(32))


class OpenAIFormat:
    """The parts that both forms have in common."""

    end_of_stream = b"data: [DONE]\n\n"
    whole_object = chunk_object = "text_completion"

    def __init__(self, tokenizer: Tokenizer, model: str) -> None:
        self._tokenizer, self._model = tokenizer, model
        self._id = random_id("chatcmpl-")
        self._native = NativeFormat(tokenizer, model)

    def whole(self, generations: Sequence[Generation]) -> object:
        """One object with a choice for each completion; usage and timings of the first."""
        first = generations[0]
        answer = self._envelope(self.whole_object, [self._choice(each) for each in generations])
        answer["usage"] = first.usage
        if first.request.is_on("verbose"):
            answer["__verbose"] = self._native.final(first)
        return answer | {"timings": first.timings()}

    def error(self, error: Event) -> bytes:
        """An event with `error`."""
        return data_event({"error": error})

    def encode(self, event: Event) -> bytes:
        """A server-sent event."""
        return data_event(event)

    def _choice(self, generation: Generation) -> Event:
        raise NotImplementedError

    def _envelope(self, kind: str, choices: list[Event]) -> Event:
        return {
            "choices": choices,
            "created": unix_time(),
            "model": self._model,
            "system_fingerprint": BUILD_INFO,
            "object": kind,
            "id": self._id,
        }

    def _logprobs(self, generation: Generation, pieces: Sequence[Piece]) -> Event | None:
        """The value of `logprobs`; None where they were not asked for."""
        if not generation.request.number("n_probs"):
            return None
        return {"content": token_probs(generation, pieces, self._tokenizer)}

    def _details(self, generation: Generation, *, is_progress: bool = False) -> Event:
        """Timings and progress of an event in a stream."""
        details: Event = {}
        if generation.request.is_on("timings_per_token"):
            details["timings"] = generation.timings()
        if is_progress:
            details["prompt_progress"] = prompt_progress(generation)
        return details


class OpenAITextFormat(OpenAIFormat):
    """Answers of `/v1/completions`."""

    def progress(self, generation: Generation) -> Iterable[Event]:
        """One event with `prompt_progress`."""
        return [self._chunk(generation, "", None) | self._details(generation, is_progress=True)]

    def piece(self, generation: Generation, piece: Piece) -> Iterable[Event]:
        """One event for each token."""
        chunk = self._chunk(generation, piece.text, self._logprobs(generation, [piece]))
        if generation.request.is_on("verbose"):
            chunk["__verbose"] = next(iter(self._native.piece(generation, piece)))
        return [chunk | self._details(generation)]

    def end(self, generation: Generation) -> Iterable[Event]:
        """The event with the reason of the end, usage and timings."""
        choice = {"text": "", "index": generation.index, "logprobs": None, "finish_reason": generation.finish_reason}
        chunk = self._envelope(self.chunk_object, [choice]) | {"usage": generation.usage}
        if generation.request.is_on("verbose"):
            chunk["__verbose"] = self._native.final(generation)
        return [chunk | {"timings": generation.timings()}]

    def _choice(self, generation: Generation) -> Event:
        logprobs = self._logprobs(generation, shown_pieces(generation, self._tokenizer))
        return {
            "text": generation.text,
            "index": generation.index,
            "logprobs": logprobs,
            "finish_reason": generation.finish_reason,
        }

    def _chunk(self, generation: Generation, text: str, logprobs: Event | None) -> Event:
        choice = {"text": text, "index": generation.index, "logprobs": logprobs, "finish_reason": None}
        return self._envelope(self.chunk_object, [choice])


class OpenAIChatFormat(OpenAIFormat):
    """Answers of `/v1/chat/completions`."""

    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, model: str) -> None:
        super().__init__(tokenizer, model)
        self._messages = MessageCollector()

    def progress(self, generation: Generation) -> Iterable[Event]:
        """One event with the role and `prompt_progress`."""
        return [self._delta(generation, _role()) | self._details(generation, is_progress=True)]

    def piece(self, generation: Generation, piece: Piece) -> Iterable[Event]:
        """The role before the first token; then an event for each token that has text."""
        deltas = [_role()] if len(generation.pieces) == 1 else []
        deltas += map(_change, self._messages.push(generation, piece))
        chunks = [self._delta(generation, delta) for delta in deltas]
        if chunks:
            logprobs = self._logprobs(generation, [piece])
            if logprobs is not None:
                chunks[-1]["choices"][0]["logprobs"] = logprobs  # type: ignore[index]
            chunks[-1] |= self._details(generation)
        return chunks

    def end(self, generation: Generation) -> Iterable[Event]:
        """The event with the reason of the end, and usage if it was asked for."""
        message = self._messages.of(generation)
        chunks = [self._delta(generation, _change(change)) for change in message.flush()]
        chunks.append(self._delta(generation, {}, message.finish_reason(generation)))
        if generation.request.include_usage:
            chunks.append(self._envelope(self.chunk_object, []) | {"usage": generation.usage})
        chunks[-1]["timings"] = generation.timings()
        if generation.request.is_on("verbose"):
            chunks[0]["__verbose"] = self._native.final(generation)
        return chunks

    def _choice(self, generation: Generation) -> Event:
        message = whole_message(generation)
        choice: Event = {
            "finish_reason": message.finish_reason(generation),
            "index": generation.index,
            "message": _message(message),
        }
        logprobs = self._logprobs(generation, shown_pieces(generation, self._tokenizer))
        return choice if logprobs is None else choice | {"logprobs": logprobs}

    def _delta(self, generation: Generation, delta: Event, reason: str | None = None) -> Event:
        choice: Event = {"finish_reason": reason, "index": generation.index, "delta": delta}
        return self._envelope(self.chunk_object, [choice])


def _role() -> Event:
    return {"role": "assistant", "content": None}


def _message(message: MessageParts) -> Event:
    found: Event = {"role": "assistant", "content": message.text}
    if message.reasoning_content:
        found["reasoning_content"] = message.reasoning_content
    if message.calls:
        functions = [(call.id, {"name": call.name, "arguments": call.arguments}) for call in message.calls]
        found["tool_calls"] = [{"type": "function", "function": function, "id": id} for id, function in functions]
    return found


def _change(change: MessageDelta) -> Event:
    """The `delta` of a chunk."""
    if change.reasoning_content:
        return {"reasoning_content": change.reasoning_content}
    call = change.call
    if call is None:
        return {"content": change.text}
    function = {"name": call.name, "arguments": call.arguments} if call.name else {"arguments": call.arguments}
    begin: Event = {"id": call.id, "type": "function"} if call.name else {}
    return {"tool_calls": [{"index": call.index, **begin, "function": function}]}
