"""llama-server's own form of answers: `/completion`."""

from collections.abc import Iterable, Sequence

from minillama.engine.result import Piece
from minillama.server.answers.answer_format import Event, data_event, prompt_progress
from minillama.server.answers.generation import Generation
from minillama.server.answers.generation_settings import generation_settings
from minillama.server.answers.token_probs import shown_pieces, token_probs
from minillama.server.requests.token_options import select_fields
from minillama.tokenizer import Tokenizer


class NativeFormat:
    """Answers of `/completion`; several completions are a JSON list."""

    end_of_stream = b""

    def __init__(self, tokenizer: Tokenizer, model: str) -> None:
        self._tokenizer, self._model = tokenizer, model

    def whole(self, generations: Sequence[Generation]) -> object:
        """An object, or a list for several completions."""
        answers = [select_fields(self.final(each), each.request.response_fields) for each in generations]
        return answers[0] if len(answers) == 1 else answers

    def progress(self, generation: Generation) -> Iterable[Event]:
        """One event with `prompt_progress`."""
        return [self._partial(generation, "", 0) | {"prompt_progress": prompt_progress(generation)}]

    def piece(self, generation: Generation, piece: Piece) -> Iterable[Event]:
        """One event for each token."""
        event = self._partial(generation, piece.text, piece.token)
        if generation.request.number("n_probs"):
            event["completion_probabilities"] = token_probs(generation, [piece], self._tokenizer)
        return [event]

    def end(self, generation: Generation) -> Iterable[Event]:
        """The event with `stop` and all details; the text was sent before."""
        final = self.final(generation) | {"content": "", "tokens": []}
        final.pop("completion_probabilities", None)
        return [dict(select_fields(final, generation.request.response_fields))]

    def error(self, error: Event) -> bytes:
        """An event with `error`."""
        return data_event({"error": error})

    def encode(self, event: Event) -> bytes:
        """A server-sent event."""
        return data_event(event)

    def final(self, generation: Generation) -> Event:
        """The whole answer of one completion; other forms show it as `__verbose`."""
        request, stream = generation.request, generation.stream
        answer: Event = {
            "index": generation.index,
            "content": generation.text,
            "tokens": [piece.token for piece in generation.pieces] if request.is_on("return_tokens") else [],
            "id_slot": stream.slot,
            "stop": True,
            "model": self._model,
            "tokens_predicted": len(generation.pieces),
            "tokens_evaluated": stream.prompt_tokens,
            "generation_settings": generation_settings(request),
            "prompt": prompt_text(request.ids, self._tokenizer),
            "has_new_line": generation.has_new_line,
            "truncated": generation.is_truncated,
            "stop_type": generation.stop_type,
            "stopping_word": generation.stop_string,
            "tokens_cached": stream.prompt_tokens + max(len(generation.pieces) - 1, 0),
            "timings": generation.timings(),
        }
        if request.number("n_probs"):
            shown = shown_pieces(generation, self._tokenizer)
            answer["completion_probabilities"] = token_probs(generation, shown, self._tokenizer)
        return answer

    def _partial(self, generation: Generation, text: str, token: int) -> Event:
        event: Event = {
            "index": generation.index,
            "content": text,
            "tokens": [token],
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": len(generation.pieces),
            "tokens_evaluated": generation.stream.prompt_tokens,
        }
        if generation.request.is_on("timings_per_token"):
            event["timings"] = generation.timings()
        return event


def prompt_text(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of a prompt, with its control tokens."""
    return b"".join(tokenizer.piece(token, special=True) for token in ids).decode("utf-8", "replace")
