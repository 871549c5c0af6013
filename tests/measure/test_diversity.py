"""Diversity of texts: by hand, against a reference implementation, and invariances."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.measure.texts.diversity import (
    bleu,
    distinct,
    diversity,
    entropy,
    mean_defined,
    ngrams,
    repetition,
    self_bleu,
    type_token_ratio,
    words,
)

TEXTS = st.lists(st.lists(st.integers(0, 4), max_size=12).map(tuple), max_size=6)


def slow_bleu(text: Sequence[int], references: Sequence[Sequence[int]]) -> float:
    """BLEU-4 as it is written, with every count made by looking at every place."""
    if not text:
        return float(any(not reference for reference in references))
    product, orders = 1.0, min(4, len(text))
    for n in range(1, orders + 1):
        mine = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        theirs = [[tuple(r[i : i + n]) for i in range(len(r) - n + 1)] for r in references]
        matched = sum(min(mine.count(run), max(other.count(run) for other in theirs)) for run in set(mine))
        product *= (matched if matched else 0.1) / len(mine)
    nearest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    brevity = 1.0 if len(text) > nearest else math.exp(1 - nearest / len(text))
    return brevity * product ** (1 / orders)


@given(TEXTS)
def test_self_bleu_is_the_mean_of_each_against_the_others(texts: list[tuple[int, ...]]) -> None:
    found = self_bleu(texts)
    if len(texts) < 2:
        assert math.isnan(found)
        return
    others = [texts[:place] + texts[place + 1 :] for place in range(len(texts))]
    slow = [slow_bleu(text, rest) for text, rest in zip(texts, others, strict=True)]
    assert found == pytest.approx(sum(slow) / len(slow))
    assert [bleu(text, rest) for text, rest in zip(texts, others, strict=True)] == pytest.approx(slow)


def test_bleu_by_hand() -> None:
    text, reference = words("the cat sat on the mat"), words("the cat is on the mat")
    shares = 5 / 6, 3 / 5, 1 / 4, 0.1 / 3  # "on the mat" is the one run of three, and no run of four is shared
    assert bleu(text, [reference]) == pytest.approx(math.prod(shares) ** 0.25)
    short = words("the cat")
    assert bleu(short, [reference]) == pytest.approx(math.exp(1 - 6 / 2))  # all is shared, but it is short
    assert bleu(words("the the the"), [words("the cat")]) == pytest.approx(((1 / 3) * (0.1 / 2) * 0.1) ** (1 / 3))
    assert math.isnan(bleu(text, []))


def test_closest_reference_of_two_is_the_shorter() -> None:
    assert bleu((1, 2, 3, 4), [(1, 2, 3), (1, 2, 3, 4, 9)]) == 1  # against the longer it would be exp(-1 / 4)


@given(st.lists(st.integers(), max_size=9).map(tuple), st.integers(2, 5))
def test_copies_have_a_self_bleu_of_1(text: tuple[int, ...], count: int) -> None:
    assert self_bleu([text] * count) == pytest.approx(1)


def test_nothing_in_common_is_near_0() -> None:
    assert self_bleu([tuple(range(start, start + 50)) for start in (0, 100, 200)]) < 0.01


@given(TEXTS, st.permutations(range(5)), st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(texts: list, names: list[int], random: object) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    renamed = [tuple(f"word {names[item]}" for item in text) for text in shuffled]
    before, after = vars(diversity(texts)), vars(diversity(renamed))
    assert after == pytest.approx(before, nan_ok=True)


@given(TEXTS)
def test_ranges(texts: list[tuple[int, ...]]) -> None:
    found = vars(diversity(texts))
    bits = found.pop("entropy")
    assert all(math.isnan(value) or 0 <= value <= 1 + 1e-9 for value in found.values())
    kinds = {item for text in texts for item in text}
    assert math.isnan(bits) if not kinds else -1e-9 <= bits <= math.log2(len(kinds)) + 1e-9


@given(TEXTS, st.integers(1, 4))
def test_distinct_repetition_and_entropy_against_slow_twins(texts: list[tuple[int, ...]], size: int) -> None:
    pooled, shares = [], []
    for text in texts:
        here = [text[i : i + size] for i in range(len(text)) if i + size <= len(text)]
        assert ngrams(text, size) == here
        pooled += here
        if here:
            shares.append(1 - len(set(here)) / len(here))
    assert distinct(texts, size) == pytest.approx(len(set(pooled)) / len(pooled) if pooled else math.nan, nan_ok=True)
    assert repetition(texts, size) == pytest.approx(sum(shares) / len(shares) if shares else math.nan, nan_ok=True)
    counts = Counter(item for text in texts for item in text)
    bits = -sum(n / counts.total() * math.log2(n / counts.total()) for n in counts.values())
    assert entropy(texts) == pytest.approx(bits if counts else math.nan, nan_ok=True)


def test_by_hand() -> None:
    texts = [words("a b a b a b"), words("a c")]
    assert distinct(texts, 1) == 3 / 8 and distinct(texts, 2) == 3 / 6 and distinct(texts, 3) == 2 / 4
    assert repetition(texts, 4) == pytest.approx(1 / 3)  # abab baba abab; the second text has no run of four
    assert type_token_ratio(texts) == pytest.approx((2 / 6 + 2 / 2) / 2)
    assert entropy(texts) == pytest.approx(4 / 8 * 1 + 3 / 8 * math.log2(8 / 3) + 1 / 8 * 3)


def test_empty_and_single_words() -> None:
    nothing = vars(diversity([]))
    assert all(math.isnan(value) for value in nothing.values())
    empty = vars(diversity([(), ()]))
    assert empty.pop("self_bleu") == 1 and all(math.isnan(value) for value in empty.values())
    one = diversity([("a",)])
    assert (one.distinct_1, one.type_token_ratio, one.entropy) == (1, 1, 0)
    assert math.isnan(one.distinct_2) and math.isnan(one.rep_4) and math.isnan(one.self_bleu)
    assert self_bleu([("a",), ()]) == pytest.approx(0.05)  # 0.1 of one word, and 0
    assert mean_defined([1.0, math.nan, 3.0]) == 2 and math.isnan(mean_defined([math.nan]))


def test_words_of_several_scripts() -> None:
    assert words("Don't stop, Élise’s x2!") == ("don't", "stop", "élise’s", "x2")
    assert words("从前有一只小狐狸。") == tuple("从前有一只小狐狸")
    assert words("他说hello世界，ゲームが3つ") == ("他", "说", "hello", "世", "界", *"ゲームが", "3", "つ")
    assert words("E\u0301cole नमस्ते") == ("e\u0301cole", "नमस्ते")  # marks belong to their letters
    assert words(" …—! ") == ()


def test_chinese_is_counted_by_characters() -> None:
    texts = [words("我爱你"), words("我爱他")]
    assert distinct(texts, 1) == 4 / 6 and distinct(texts, 2) == 3 / 4
    assert self_bleu(texts) == pytest.approx((2 / 3 * 1 / 2 * 0.1) ** (1 / 3))
