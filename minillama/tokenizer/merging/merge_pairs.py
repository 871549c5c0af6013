"""Greedy merging of neighbours: the core of byte-pair encoding and of SentencePiece.

A priority queue holds the pairs that can be joined, and a linked list the texts.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush


def merge_ranks(merges: Sequence[str]) -> dict[str, int]:
    """Place of each merge in the list; the first of equal ones counts."""
    ranks = dict(zip(merges, range(len(merges)), strict=True))
    if len(ranks) < len(merges):
        ranks = dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))
    return ranks


def merge_pairs(symbols: Iterable[str], cost: Callable[[str, str], float | None]) -> list[str]:
    """Join the two neighbours of lowest cost, repeatedly; the leftmost of equal ones first.

    cost: a number for two texts, or None if they cannot be joined. Time is O(n log n) for n symbols.
    """
    texts = list(symbols)  # "" after a merge with the left neighbour
    before = list(range(-1, len(texts) - 1))
    after = [*range(1, len(texts)), -1]
    queue: list[tuple[float, int, int, int]] = []
    for left in range(len(texts) - 1):
        price = cost(texts[left], texts[left + 1])
        if price is not None:
            queue.append((price, left, left + 1, len(texts[left]) + len(texts[left + 1])))
    heapify(queue)
    while queue:
        _, left, right, length = heappop(queue)
        # Outdated entry: one of the two texts was merged since.
        if not texts[left] or not texts[right] or len(texts[left]) + len(texts[right]) != length:
            continue
        texts[left] += texts[right]
        texts[right] = ""
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        for first, second in ((before[left], left), (left, after[left])):
            if first >= 0 and second >= 0:
                price = cost(texts[first], texts[second])
                if price is not None:
                    heappush(queue, (price, first, second, len(texts[first]) + len(texts[second])))
    return [text for text in texts if text]
