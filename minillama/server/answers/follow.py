"""Follow the streams of a request: progress, pieces and ends, in the order of arrival."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from minillama.engine.result import Piece, Reason, State
from minillama.server.answers.generation import Generation, Progress
from minillama.server.answers.mailbox import Reader
from minillama.server.http_errors import ErrorKind, RequestError


class Mark(Enum):
    """A change that is neither progress nor a piece."""

    END = "the completion has ended"
    PAUSE = "nothing came for a while"


class News(NamedTuple):
    """One change of a completion, which the completion holds already."""

    generation: Generation
    change: Piece | Progress | Mark


async def follow(
    generations: Sequence[Generation], reader: Reader, batch_size: int, pause: float | None
) -> AsyncIterator[News]:
    """All news until every completion has ended.

    batch_size: tokens between two reports of progress. pause: seconds of silence until `Mark.PAUSE`; None: no pause.
    Raises the error of a stream that failed, RequestError (503) for one that the end of the server cut.
    """
    running = [Follower(generation, reader, batch_size) for generation in generations]
    while running:
        for follower in tuple(running):
            for news in follower.take():
                yield news
                if news.change is Mark.END:
                    running.remove(follower)
        if running and not await reader.wait(pause):
            yield News(running[0].generation, Mark.PAUSE)


class Follower:
    """The news of one completion."""

    def __init__(self, generation: Generation, reader: Reader, batch_size: int) -> None:
        self.generation = generation
        self._snapshots = reader.snapshots_of(generation.stream)
        self._batch_size = batch_size
        self._submitted_at = time.perf_counter()
        self._reported = -1

    def take(self) -> Iterator[News]:
        """Apply and give the changes since the last call; does not wait."""
        stream = self.generation.stream
        is_done = stream.state is State.DONE  # looked at before the pieces are taken: none comes later
        pieces = stream.take()
        for progress in self._progress():
            self.generation.progress = progress
            yield News(self.generation, progress)
        for piece in pieces:
            self.generation.add(piece)
            yield News(self.generation, piece)
        if is_done:
            if stream.completion.reason is Reason.INTERRUPTED:  # the reader is here, so the server is ending
                raise RequestError(ErrorKind.UNAVAILABLE, "the server ended before the answer was complete")
            yield News(self.generation, Mark.END)

    def _progress(self) -> Iterator[Progress]:
        """Reports of the prompt: its cached part first, then one each batch."""
        stream = self.generation.stream
        if stream.slot is None or self._reported == stream.prompt_tokens:
            return
        if self._reported < 0:
            self._reported = stream.cached_tokens
            yield Progress(stream.cached_tokens, 0.0)
        while self._snapshots:
            processed, at = self._snapshots.popleft()
            is_due = processed - self._reported >= self._batch_size or processed == stream.prompt_tokens
            if is_due and processed > self._reported:
                self._reported = processed
                yield Progress(processed, max(at - self._submitted_at - stream.waited_seconds, 1e-6))
