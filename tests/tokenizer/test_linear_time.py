"""Time of tokenizers: it grows with the length of a run of equal characters, not with its square."""

import time
from collections.abc import Callable

import pytest
from tokenizers import Regex, pre_tokenizers
from vocabularies import MERGES, WORDS, bpe_metadata, spm_metadata

from minillama.tokenizer import load_tokenizer
from minillama.tokenizer.merging.byte_pairs import LONG_TEXT
from minillama.tokenizer.merging.merge_pairs import merge_pairs
from minillama.tokenizer.pretokenizers import PRETOKENIZERS

RUNS = {
    "digits": "1", "Arabic digits": "١", "spaces": " ", "wide spaces": "\u3000", "no-break spaces": "\u00a0",
    "tabs": "\t", "newlines": "\n", "blanks and newlines": " \n", "lines": "\r\n", "letters": "a", "capitals": "A",
    "accents": "é", "cases": "aA", "marks": "\u0301", "marked letters": "a\u0301", "punctuation": "!", "commas": ", ",
    "brackets": "(", "quotes": "'", "suffixes": "'s", "dashes": "-", "slashes": "/", "Chinese": "中", "Japanese": "あ",
    "Korean": "가", "Thai": "ก", "Hindi": "क्", "emoji": "😀", "families": "👨\u200d👩\u200d👧", "flags": "🇩🇪",
    "controls": "\x01", "words": "a ", "numbers": "1 ", "sentinels": "<sentinel:1", "images": "IMGIMG",
}  # fmt: skip
ENDS = ("", "1")
MOST = 9  # times as long for four times the length: 4 if linear, 16 if quadratic

CUTTERS = {
    PRETOKENIZERS[name].expressions: pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(text), behavior="isolated") for text in PRETOKENIZERS[name].expressions]
    ).pre_tokenize_str
    for name in PRETOKENIZERS
}
NAMES = list({PRETOKENIZERS[name].expressions: name for name in PRETOKENIZERS}.values())


def run_of(kind: str, length: int) -> str:
    return (RUNS[kind] * length)[:length]


def seconds(work: Callable[[str], object], text: str, repeats: int = 1) -> float:
    """Least CPU time of a call."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work(text)
        found.append(time.process_time() - start)
    return min(found)


def grows_fast(work: Callable[[str], object], kind: str, end: str, length: int) -> bool:
    """True if four times the length takes more than MOST times as long, three times in a row."""
    for _ in range(3):
        short, long = (seconds(work, run_of(kind, length * factor) + end) for factor in (1, 4))
        if long <= MOST * max(short, 1e-4):
            return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_pretokenizer_is_linear(name: str) -> None:
    cut = CUTTERS[PRETOKENIZERS[name].expressions]
    slow = [(kind, end) for kind in RUNS for end in ENDS if grows_fast(cut, kind, end, 2000)]
    assert not slow


@pytest.mark.slow
@pytest.mark.parametrize("length", [LONG_TEXT // 8, 2 * LONG_TEXT])
@pytest.mark.parametrize("kind", RUNS)
def test_every_tokenizer_is_linear(kind: str, length: int) -> None:
    merges = [f"{'a' * 2**power} {'a' * 2**power}" for power in range(8)]
    for metadata in (bpe_metadata([*MERGES, *merges]), spm_metadata({**WORDS, "aa": -1.0, "▁▁": -1.0, "中中": -2.0})):
        tokenizer = load_tokenizer(metadata)
        assert not grows_fast(tokenizer.encode, kind, "", length)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_regex_engine_has_enough_memory_for_a_long_run(name: str) -> None:
    for kind in ("spaces", "lines", "letters", "marked letters", "punctuation", "Chinese", "digits"):
        text = run_of(kind, 300_000) + "x"
        pieces = CUTTERS[PRETOKENIZERS[name].expressions](text)
        assert "".join(piece for piece, _ in pieces) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tiny_aya", "1" * 100_000),
        ("superbpe", "1" * 100_000),
        ("jais-2", " " * 300_000 + "x"),
        ("deepseek-llm", " " * 30_000 + "1"),
    ],
)
def test_long_runs(name: str, text: str) -> None:
    assert seconds(CUTTERS[PRETOKENIZERS[name].expressions], text) < 2


@pytest.mark.parametrize("symbols", ["a" * 4096, "ab" * 2048, "aab" * 1365, "abcdefgh" * 512])
def test_merging_reads_each_pair_a_few_times(symbols: str) -> None:
    reads = 0

    def cost(left: str, right: str) -> int | None:
        nonlocal reads
        reads += 1
        return len(left) if len(left) + len(right) <= 64 else None

    merged = merge_pairs(symbols, cost)
    assert "".join(merged) == symbols and max(map(len, merged)) > 32
    assert reads <= 3 * len(symbols)


def test_a_run_of_chinese_within_one_piece() -> None:
    tokenizer = load_tokenizer(bpe_metadata(MERGES, pre="qwen2"))
    assert seconds(lambda text: tokenizer.encode(text, add_special=False), "中" * 1990) < 1
