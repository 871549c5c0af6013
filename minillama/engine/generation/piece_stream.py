"""The common part of all streams of text: iterate, close, finish."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

from minillama.engine.result import Completion, Piece

AnyStream = TypeVar("AnyStream", bound="PieceStream")


class PieceStream(Iterator[Piece]):
    """An iterator of pieces, and a context manager that closes it."""

    def __enter__(self: AnyStream) -> AnyStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def completion(self) -> Completion:
        """The result; raises ValueError while the stream is still running."""

    @abstractmethod
    def close(self) -> None:
        """Stop generating; `completion` keeps what was written."""

    def finish(self) -> Completion:
        """Run to the end; an interrupt ends it and keeps the text so far.

        Raises the error of a stream that failed.
        """
        with suppress(KeyboardInterrupt):
            for _ in self:
                pass
        self.close()
        return self.completion
