"""How diverse texts are: distinct-n, self-BLEU, repetition, type-token ratio and entropy, over words or token ids.

Each is a number of sequences of hashable items. It is nan where there is nothing to count: `mean_defined` leaves such
numbers out. All of them depend on the length of the texts, so compare only texts of about the same length.
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
EPSILON = 0.1  # in place of a count of 0: method 1 of Chen and Cherry (2014), as in NLTK and Texygen

# Scripts that are written without blanks between words; there every character counts as a word.
_SINGLE = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
_WORD = regex.compile(rf"(?V1){_SINGLE}|[[\p{{L}}\p{{M}}\p{{N}}]--{_SINGLE}]+(?:['’][[\p{{L}}\p{{M}}]--{_SINGLE}]+)*")


@dataclass(frozen=True)
class Diversity:
    """What can be said of a set of texts; for each, more is more diverse but for `self_bleu` and `rep_4`."""

    distinct_1: float
    distinct_2: float
    distinct_3: float
    self_bleu: float
    rep_4: float
    type_token_ratio: float
    entropy: float  # bits


def words(text: str) -> tuple[str, ...]:
    """The words of a text, in small letters: each Han character or kana is one, elsewhere each run of letters, marks
    and digits, inner apostrophes included ("don't"); punctuation and blanks are none."""
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
    """distinct-n: different ngrams of `size` items in all texts together, divided by the number of such ngrams.

    Li et al. 2016 (arXiv:1510.03055), who divide by the number of words, which is larger by size - 1 a text.
    """
    found = [run for text in texts for run in ngrams(text, size)]
    return len(set(found)) / len(found) if found else math.nan


def repetition(texts: Sequence[Items], size: int = 4) -> float:
    """rep-n: 1 - different ngrams / ngrams within each text, as the mean of the texts that have any.

    seq-rep-n of Welleck et al. 2020 (arXiv:1908.04319).
    """
    return mean_defined([1 - distinct([text], size) for text in texts])


def type_token_ratio(texts: Sequence[Items]) -> float:
    """Different items / items within each text, as the mean of the texts that are not empty; over all texts together
    that would be distinct-1."""
    return mean_defined([distinct([text], 1) for text in texts])


def entropy(texts: Sequence[Items]) -> float:
    """Bits of the distribution of the single items of all texts together: -sum of p log2 p; at most log2 of their
    number (Shannon 1948)."""
    counts = Counter(item for text in texts for item in text)
    total = counts.total()
    return math.fsum(count / total * math.log2(total / count) for count in counts.values()) if total else math.nan


def self_bleu(texts: Sequence[Items], order: int = BLEU_ORDER) -> float:
    """Mean BLEU of each text against all the others as references: 1 for copies of one text, towards 0 for texts that
    have nothing in common; nan for less than two.

    Zhu et al. 2018 (arXiv:1802.01886); see `bleu` for the smoothing. Takes time in proportion to the items.
    """
    if len(texts) < 2:
        return math.nan
    # Of each run the largest count in one text, that text's number, and the largest in any other: so the largest
    # count among the others is known without comparing all pairs.
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
    """BLEU of one text: the geometric mean of the shares of its ngrams of 1 .. `order` items that a reference has too,
    each run as often as the reference with most of it, times exp(1 - reference / length) for a text shorter than the
    reference closest to it in length (Papineni et al. 2002).

    A count of 0 is taken as 0.1 (method 1 of Chen and Cherry 2014). A text shorter than `order` is judged by the ngrams
    that it has. An empty one has 1 if a reference is empty as well, else 0; nan without references.
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
    """The ngrams of `size` neighbouring items, from left to right (n-grams)."""
    return [tuple(text[start : start + size]) for start in range(len(text) - size + 1)]


def mean_defined(values: Iterable[float]) -> float:
    """The mean of the numbers that are not nan; nan if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return mean(defined) if defined else math.nan


def _counts(text: Items, order: int) -> list[Counter[NGram]]:
    return [Counter(ngrams(text, size)) for size in range(1, order + 1)]


def _closest(length: int, lengths: Iterable[int]) -> int:
    """The length nearest to a text's own, of two the shorter."""
    return min(lengths, key=lambda other: (abs(other - length), other))


def _bleu(length: int, reference: int, matched: Sequence[int]) -> float:
    """BLEU of a text from its matched ngrams of 1, 2, ... items."""
    if length == 0:
        return float(reference == 0)
    shares = [(count or EPSILON) / (length - place) for place, count in enumerate(matched[:length])]
    penalty = min(0.0, 1 - reference / length)
    return math.exp(penalty + math.fsum(map(math.log, shares)) / len(shares))
