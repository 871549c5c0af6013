"""Prompt lookup decoding: draft tokens from earlier repeats (Saxena 2023; llama.cpp #4484).

Text repeats itself: names, code, quotations of the prompt. What followed the last few tokens when they stood in the
context before is a guess that costs nothing. The model checks all of it in one pass, which on memory-bound hardware
takes little longer than one token.
"""

from collections.abc import Iterable


class PromptLookup:
    """An index of the context's n-grams, with the draft length that currently pays.

    Example, with the context a b c d a b: the last two tokens stood at the start, so the guess is c d a b c d ...
    """

    def __init__(self, ngram_max: int, draft_max: int) -> None:
        """ngram_max: the longest end of the context to look for.

        Draft_max: the longest guess; in tokens.
        """
        self._sizes = range(ngram_max, 0, -1)
        self._draft_max = draft_max
        self._worth = draft_max
        self._tokens: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}  # n-gram: where its last occurrence with a successor ends

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens to the context; a constant number of entries each."""
        for token in tokens:
            end = len(self._tokens)
            for size in self._sizes:
                if size <= end:
                    self._followed[tuple(self._tokens[end - size :])] = end
            self._tokens.append(token)

    def draft(self, most: int) -> list[int]:
        """The tokens that followed the last earlier occurrence of the longest repeated suffix.

        [] if none repeats.

        A draft that reaches the end of the context continues with itself, as a copy in LZ77 does.
        """
        count = min(most, self._worth)
        if count < 1:
            return []
        for size in self._sizes:
            if size > len(self._tokens):
                continue
            start = self._followed.get(tuple(self._tokens[-size:]))
            if start is not None:
                period = len(self._tokens) - start
                return [self._tokens[start + place % period] for place in range(count)]
        return []

    def learn(self, accepted: int) -> None:
        """Set the next draft to about twice the accepted part of the last one.

        Guesses are cheap, not free: where the text does not repeat itself they are of a single token. They grow as
        1, 3, 7, ..., which with the token before them fills a pass of 2, 4, 8, ...
        """
        self._worth = min(self._draft_max, (2 << accepted.bit_length()) - 1)
