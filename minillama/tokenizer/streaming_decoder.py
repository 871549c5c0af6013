"""Text from tokens as they arrive, whole characters only."""

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Push token ids, get text: bytes of a character that is not complete yet wait for the next token.

    What all calls return, joined, is what decoding all bytes at once gives: U+FFFD stands for bytes that are no
    UTF-8. Llama.cpp's clean-up of a finished text (a blank before punctuation) needs to look ahead, so it is not done.
    """

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        """`piece` gives the bytes of a token."""
        self._piece = piece
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that this token completes; often "" inside Chinese text or emoji."""
        return self._characters.decode(self._piece(token))

    def flush(self) -> str:
        """What is left at the end: U+FFFD if a character was cut, else "". The decoder is as new after it."""
        text = self._characters.decode(b"", final=True)
        self._characters.reset()
        return text
