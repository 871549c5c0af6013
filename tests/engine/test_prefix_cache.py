"""The prefix cache: the longest common prefix, least recently used first, never above its bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.engine.batching.policy.radix_tree import RadixTree
from minillama.engine.batching.prefix_cache import PrefixCache

sequences = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(st.lists(st.tuples(st.booleans(), sequences), max_size=30), sequences)
def test_trie_against_a_plain_list(changes: list[tuple[bool, tuple[int, ...]]], wanted: tuple[int, ...]) -> None:
    trie, plain = RadixTree[tuple[int, ...]](), set()
    for is_new, tokens in changes:
        if is_new:
            trie.insert(tokens, tokens)
            plain.add(tokens)
        elif tokens in plain:
            trie.remove(tokens)
            plain.remove(tokens)
        else:
            with pytest.raises(KeyError):
                trie.remove(tokens)
    longest = max((common(tokens, wanted) for tokens in plain), default=0)
    length, value = trie.longest(wanted)
    assert length == longest
    assert value is None if longest == 0 else common(value, wanted) == longest and value in plain
    whole = max((len(tokens) for tokens in plain if tokens == wanted[: len(tokens)]), default=0)
    assert trie.longest_whole(wanted) == (whole, wanted[:whole] if whole else None)


@given(st.lists(st.tuples(st.booleans(), sequences), max_size=30), st.integers(0, 200))
def test_cache_against_a_plain_list(uses: list[tuple[bool, tuple[int, ...]]], limit: int) -> None:
    """The plain list has the most recently used one at its end."""
    cache, plain = PrefixCache(limit), []
    for is_new, tokens in uses:
        if is_new and 8 * len(tokens) <= limit:
            cache.add(tokens, np.array(tokens, np.int64), len(tokens))
            plain = [one for one in plain if one != tokens] + [tokens]
            while sum(8 * len(one) for one in plain) > limit:
                plain.pop(0)
        elif is_new:
            cache.add(tokens, np.array(tokens, np.int64), len(tokens))
        elif length := cache.length(tokens, rewinds=False):
            assert cache.take(tokens, rewinds=False).tolist() == list(tokens[:length])
            plain = [one for one in plain if one != tokens[:length]] + [tokens[:length]]
        assert len(cache) == len(plain) and cache.nbytes == sum(8 * len(one) for one in plain) <= limit
        for one in plain:
            assert cache.length(one, rewinds=True) == len(one)


def test_a_part_of_a_copy_where_slots_go_back() -> None:
    cache = PrefixCache(1000)
    cache.add((1, 2, 3, 4), np.arange(4), 4)
    assert cache.length((1, 2, 9), rewinds=True) == 2 and cache.length((1, 2, 9), rewinds=False) == 0
    assert cache.take((1, 2, 9), rewinds=True).tolist() == [0, 1, 2, 3]
    cache.add((1, 2, 3, 4), np.arange(4), 1)
    assert cache.length((1, 2, 9), rewinds=True) == 1, "a step ran the second token, which ended a prompt"
    cache.clear()
    assert len(cache) == cache.nbytes == 0
