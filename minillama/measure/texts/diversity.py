"""Diversity of texts: distinct-n, self-BLEU, repetition, type-token ratio and entropy.

The measures apply to sequences of words or token ids. A measure is nan if there is nothing to count; `mean_defined`
leaves nan out. All measures depend on text length, so compare only texts of about the same length.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import regex

from minillama.measure.sample_statistics import mean

Items = Sequence[Hashable]  # the words or the token ids of one text
NGram = tuple[Hashable, ...]

BLEU_ORDER = 4
EPSILON = 0.1  # replaces a count of 0: method 1 of Chen and Cherry (2014), as in NLTK and Texygen

# Scripts without spaces between words: every character counts as a word.
_SINGLE = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
_WORD = regex.compile(rf"(?V1){_SINGLE}|[[\p{{L}}\p{{M}}\p{{N}}]--{_SINGLE}]+(?:['’][[\p{{L}}\p{{M}}]--{_SINGLE}]+)*")


@dataclass(frozen=True)
class Diversity:
    """Diversity measures of a set of texts.

    A larger value means more diversity, except for `self_bleu` and `rep_4`.
    """

    distinct_1: float
    distinct_2: float
    distinct_3: float
    self_bleu: float
    rep_4: float
    type_token_ratio: float
    entropy: float  # bits


def words(text: str) -> tuple[str, ...]:
    """Split a text into lower-case words.

    Each Han character or kana is a word. In other scripts a word is a run of letters, marks and digits, with inner
    apostrophes ("don't"). Punctuation and white space are dropped.
    """
    return tuple(_WORD.findall(text.casefold()))


def diversity(texts: Sequence[Items]) -> Diversity:
    """All measures of one set of texts."""
    return Diversity(
        *(distinct(texts, size) for size in (1, 2, 3)),
        self_bleu=self_bleu(texts),
        rep_4=repetition(texts, 4),
        type_token_ratio=type_token_ratio(texts),
        entropy=entropy(texts),
    )


def distinct(texts: Sequence[Items], size: int) -> float:
    """distinct-n: different n-grams / all n-grams, over all texts together.

    size: items per n-gram. Li et al. 2016 (arXiv:1510.03055) divide by the number of words instead, which is larger by
    size - 1 per text.
    """
    found = [run for text in texts for run in ngrams(text, size)]
    return len(set(found)) / len(found) if found else math.nan


def repetition(texts: Sequence[Items], size: int = 4) -> float:
    """rep-n: mean over texts of 1 - different n-grams / all n-grams.

    seq-rep-n of Welleck et al. 2020 (arXiv:1908.04319).
    """
    return mean_defined([1 - distinct([text], size) for text in texts])


def type_token_ratio(texts: Sequence[Items]) -> float:
    """Mean over non-empty texts of different items / all items."""
    return mean_defined([distinct([text], 1) for text in texts])


def entropy(texts: Sequence[Items]) -> float:
    """Entropy of the item distribution of all texts together, in bits (Shannon 1948).

    -sum of p log2 p; at most log2 of the number of different items.
    """
    counts = Counter(item for text in texts for item in text)
    total = counts.total()
    return math.fsum(count / total * math.log2(total / count) for count in counts.values()) if total else math.nan


def self_bleu(texts: Sequence[Items], order: int = BLEU_ORDER) -> float:
    """Mean BLEU of each text with all other texts as references.

    nan for fewer than two texts; 1 for copies of one text, near 0 for texts without common n-grams. Zhu et al. 2018
    (arXiv:1802.01886); see `bleu` for the smoothing. The time is proportional to the number of items.
    """
    if len(texts) < 2:
        return math.nan
    # Per n-gram: the largest count in one text, the index of that text, and the largest count in any other text.
    # They give the largest count among the other texts without a comparison of all pairs.
    most: dict[NGram, tuple[int, int, int]] = {}
    counts = [_counts(text, order) for text in texts]
    for number, of_sizes in enumerate(counts):
        for run, count in (pair for of_size in of_sizes for pair in of_size.items()):
            first, owner, second = most.get(run, (0, -1, 0))
            most[run] = (count, number, first) if count > first else (first, owner, max(second, count))

    def elsewhere(run: NGram, number: int) -> int:
        first, owner, second = most[run]
        return second if owner == number else first

    lengths = Counter(len(text) for text in texts)
    scores = []
    for number, (text, of_sizes) in enumerate(zip(texts, counts, strict=True)):
        matched = [sum(min(count, elsewhere(run, number)) for run, count in of_size.items()) for of_size in of_sizes]
        others = lengths - Counter([len(text)])
        scores.append(_bleu(len(text), _closest(len(text), others), matched))
    return mean(scores)


def bleu(text: Items, references: Sequence[Items], order: int = BLEU_ORDER) -> float:
    """BLEU of one text (Papineni et al. 2002); nan without references.

    The geometric mean of the clipped n-gram precisions of 1 to `order` items, times the brevity penalty
    exp(1 - reference / length) for a text shorter than the reference closest in length.
    A count of 0 is taken as 0.1 (method 1 of Chen and Cherry 2014). A text shorter than `order` uses the n-gram sizes
    that it has. An empty text scores 1 if a reference is empty too, else 0.
    """
    if not references:
        return math.nan
    theirs = [_counts(reference, order) for reference in references]
    matched = [
        sum(min(count, max(of_sizes[place][run] for of_sizes in theirs)) for run, count in of_size.items())
        for place, of_size in enumerate(_counts(text, order))
    ]
    return _bleu(len(text), _closest(len(text), Counter(map(len, references))), matched)


def ngrams(text: Items, size: int) -> list[NGram]:
    """The n-grams of `size` items, from left to right."""
    return [tuple(text[start : start + size]) for start in range(len(text) - size + 1)]


def mean_defined(values: Iterable[float]) -> float:
    """The mean of the values that are not nan; nan without values."""
    defined = [value for value in values if not math.isnan(value)]
    return mean(defined) if defined else math.nan


def _counts(text: Items, order: int) -> list[Counter[NGram]]:
    return [Counter(ngrams(text, size)) for size in range(1, order + 1)]


def _closest(length: int, lengths: Iterable[int]) -> int:
    """The reference length nearest to a text's own; the shorter one of two."""
    return min(lengths, key=lambda other: (abs(other - length), other))


def _bleu(length: int, reference: int, matched: Sequence[int]) -> float:
    """BLEU from the numbers of matched n-grams of 1, 2, ... items."""
    if length == 0:
        return float(reference == 0)
    shares = [(count or EPSILON) / (length - place) for place, count in enumerate(matched[:length])]
    penalty = min(0.0, 1 - reference / length)
    return math.exp(penalty + math.fsum(map(math.log, shares)) / len(shares))
