"""Streaming detokenization: text from tokens as they arrive, in whole characters."""

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Incremental decoder from token ids to text; incomplete characters wait for the next token.

    The concatenated results equal the decoding of all bytes at once; U+FFFD replaces bytes that are not UTF-8.
    llama.cpp's clean-up of a complete text (spaces before punctuation) needs look-ahead and is omitted.
    """

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        """piece: function from a token id to its bytes."""
        self._piece = piece
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that this token completes; often "" inside Chinese text or emoji."""
        return self._characters.decode(self._piece(token))

    def flush(self) -> str:
        """Return the rest, U+FFFD for an incomplete character or "", and reset the decoder."""
        text = self._characters.decode(b"", final=True)
        self._characters.reset()
        return text
