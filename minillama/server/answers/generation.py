"""One running completion of a request: pieces, usage, timings, reason of the end."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minillama.engine.result import Completion, Piece, Reason
from minillama.server.requests.generation_request import GenerationRequest

if TYPE_CHECKING:
    from minillama.engine.batching.batch_stream import BatchStream

STOP_TYPES = {Reason.STOP: "eos", Reason.WORD: "word", Reason.LIMIT: "limit", Reason.LENGTH: "limit"}


@dataclass(frozen=True)
class Progress:
    """A part of the prompt was read; seconds since the slot began."""

    processed: int
    seconds: float


@dataclass(eq=False)
class Generation:
    """A completion while it runs.

    index: of the prompt and completion in the answer. pieces: those that have come so far.
    """

    request: GenerationRequest
    index: int
    stream: "BatchStream"
    pieces: list[Piece] = field(default_factory=list)
    has_new_line: bool = False
    progress: Progress = field(default_factory=lambda: Progress(0, 0.0))

    def add(self, piece: Piece) -> None:
        """Add the next piece."""
        self.pieces.append(piece)
        self.has_new_line = self.has_new_line or "\n" in piece.text

    @property
    def completion(self) -> Completion:
        """The result, when the stream has ended."""
        return self.stream.completion

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def reasoning_content(self) -> str:
        """The thoughts so far."""
        return "".join(piece.reasoning_content for piece in self.pieces)

    @property
    def is_truncated(self) -> bool:
        """Whether the context was full: the text ended, or older tokens were dropped."""
        return self.completion.reason is Reason.LENGTH or self.stream.is_shifted

    @property
    def stop_type(self) -> str:
        """llama-server's name of the reason of the end."""
        return STOP_TYPES.get(self.completion.reason, "none")

    @property
    def finish_reason(self) -> str:
        """OpenAI's name of the reason of the end."""
        return "stop" if self.completion.reason in (Reason.STOP, Reason.WORD) else "length"

    @property
    def stop_string(self) -> str:
        """The stop string that ended the text, or an empty text."""
        return self.stream.stop_string

    @property
    def usage(self) -> dict[str, object]:
        """Tokens read and written, in OpenAI's form."""
        read, written = self.stream.prompt_tokens, len(self.pieces)
        return {
            "completion_tokens": written,
            "prompt_tokens": read,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": self.stream.cached_tokens},
        }

    def timings(self) -> dict[str, float]:
        """Tokens, milliseconds and rates so far, in llama-server's form.

        The first token is a part of the prompt's time: rates of generation are over the steps after it.
        """
        stream = self.stream
        read, written = self.progress.processed - stream.cached_tokens, len(self.pieces)
        prompt_ms = 1000 * self._prompt_seconds
        steps, step_ms = max(written - 1, 0), 1000 * sum(piece.seconds for piece in self.pieces[1:])
        return {
            "cache_n": stream.cached_tokens,
            "prompt_n": read,
            "prompt_ms": prompt_ms,
            "prompt_per_token_ms": prompt_ms / read if read else 0.0,
            "prompt_per_second": 1000 * read / prompt_ms if prompt_ms else 0.0,
            "predicted_n": written,
            "predicted_ms": step_ms or (0.001 if written else 0.0),
            "predicted_per_token_ms": step_ms / steps if steps else 0.0,
            "predicted_per_second": 1000 * steps / step_ms if step_ms else 0.0,
            **self._draft_counts(),
        }

    def _draft_counts(self) -> dict[str, float]:
        """Guessed and accepted tokens, where there are any."""
        drafted = self.stream.drafted_tokens
        return {"draft_n": drafted, "draft_n_accepted": self.stream.accepted_tokens} if drafted else {}

    @property
    def _prompt_seconds(self) -> float:
        """Seconds from the slot to the first token, or to the last progress."""
        if self.pieces:
            return max(self.pieces[0].seconds - self.stream.waited_seconds, 1e-6)
        return self.progress.seconds


def unix_time() -> int:
    """The value of `created` in answers."""
    return int(time.time())
