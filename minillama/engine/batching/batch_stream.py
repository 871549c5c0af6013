"""The answer of a batch engine to one request, while it is written."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from minillama.engine.generation.piece_stream import PieceStream
from minillama.engine.result import Completion, Piece, State

LONGEST_WAIT = 0.5  # seconds without a look at signals, where a wait cannot be interrupted


class BatchStream(PieceStream):
    """An iterator of pieces and a context manager; `completion` is there when it has ended.

    Any thread may read it and cancel it. An interrupt (Ctrl-C) while it is read cancels it and is raised again.
    """

    def __init__(
        self,
        number: int,
        prompt_tokens: int,
        seed: int,
        cancel: Callable[["BatchStream"], None],
        on_change: Callable[["BatchStream"], None] | None = None,
    ) -> None:
        self.number = number  # counts the requests of an engine
        self.prompt_tokens = prompt_tokens
        self.seed = seed  # the actual one, also where a random one was wanted
        self.state = State.WAITING
        self.slot: int | None = None  # None while it waits
        self.read_tokens = 0  # of the prompt, those in the cache included
        self.cached_tokens = 0  # of the prompt, that were in the cache already
        self.waited_seconds = 0.0  # until it had a slot
        self.drafted_tokens = self.accepted_tokens = 0  # guessed by the draft model; of these, written
        self.stop_string = ""  # the one that ended the text
        self.is_cancelled = False
        self.is_shifted = False  # whether a full context has dropped tokens
        self._cancel, self._on_change = cancel, on_change
        self._pieces: deque[Piece] = deque()
        self._shown: list[Piece] = []
        self._changed = threading.Condition()
        self._completion: Completion | None = None
        self._error: Exception | None = None
        self._has_news = False

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        try:
            with self._changed:
                while not self._pieces and self.state is not State.DONE:
                    self._changed.wait(LONGEST_WAIT)
                if self._pieces:
                    return self._pieces.popleft()
        except BaseException:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error
        raise StopIteration

    def take(self) -> list[Piece]:
        """The pieces that are there; does not wait.

        Raises the error of a stream that failed, after its last piece.
        """
        with self._changed:
            pieces = list(self._pieces)
            self._pieces.clear()
        if not pieces and self._error is not None:
            raise self._error
        return pieces

    def cancel(self) -> None:
        """End it soon; does not wait. `completion` keeps what was written."""
        if self.state is not State.DONE:
            self.is_cancelled = True
            self._cancel(self)

    def close(self) -> None:
        """Cancel it and wait for its end."""
        self.cancel()
        with self._changed:
            while self.state is not State.DONE:
                self._changed.wait(LONGEST_WAIT)

    @property
    def completion(self) -> Completion:
        """The result.

        Raises ValueError while it is still running, and the error of one that failed.
        """
        if self._error is not None:
            raise self._error
        if self._completion is None:
            raise ValueError("the stream has not ended; iterate over it to its end or close it")
        return self._completion

    @property
    def error(self) -> Exception | None:
        """The error of a stream that failed."""
        return self._error

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(piece.text for piece in list(self._shown))

    @property
    def reasoning_content(self) -> str:
        """The thoughts so far, of a chat."""
        return "".join(piece.reasoning_content for piece in list(self._shown))

    def begin(self, slot: int, cached: int, waited: float) -> None:
        """For the engine: after `waited` seconds, a slot with a part of the prompt."""
        self.waited_seconds = waited
        self.slot, self.cached_tokens, self.read_tokens, self.state = slot, cached, cached, State.PROMPT
        self._has_news = True

    def progress(self, count: int) -> None:
        """For the engine: more tokens of the prompt are read."""
        self.read_tokens += count
        self._has_news = True

    def deliver(self, piece: Piece) -> None:
        """For the engine: one more piece."""
        with self._changed:
            self.state = State.GENERATING
            self._pieces.append(piece)
            self._shown.append(piece)
            self._changed.notify_all()
        self._has_news = True

    def end(self, completion: Completion) -> None:
        """For the engine: no piece follows."""
        self._stop(completion, None)

    def fail(self, error: Exception) -> None:
        """For the engine: the stream ends with an error."""
        self._stop(None, error)

    def notify(self) -> None:
        """For the engine: call `on_change` if there is news."""
        if self._has_news and self._on_change is not None:
            self._has_news = False
            self._on_change(self)

    def _stop(self, completion: Completion | None, error: Exception | None) -> None:
        with self._changed:
            if self.state is State.DONE:
                return
            self._completion, self._error, self.state = completion, error, State.DONE
            self._changed.notify_all()
        self._has_news = True


def finish_all(streams: Sequence[BatchStream]) -> list[Completion]:
    """Wait for all streams; an interrupt ends them and keeps the texts so far."""
    try:
        for stream in streams:
            for _ in stream:
                pass
    except KeyboardInterrupt:
        for stream in streams:
            stream.cancel()
    return [stream.finish() for stream in streams]
