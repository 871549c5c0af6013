"""Lab 14: blocks against a plain count, and checks that name mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_checks import solutions

from minillama.lab.checks import lab14
from minillama.lab.grading.check import Item
from minillama.lab.serving.cache_blocks import CacheBlocks, NoBlocksError, faulty_release, reserved_tokens


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=9), max_size=6), st.integers(1, 4))
def test_tables_hold_equal_tokens_and_rules_hold(texts: list[list[int]], size: int) -> None:
    blocks = CacheBlocks(12, size)
    contents: dict[int, tuple[int, ...]] = {}
    for number, tokens in enumerate(texts):
        free = len(blocks.free)
        try:
            blocks.add(number, tokens)
        except NoBlocksError:
            assert len(blocks.free) == free and number not in blocks.tables
            continue
        for place, block in enumerate(blocks.tables[number]):
            prefix = tuple(tokens[: (place + 1) * size])
            assert contents.setdefault(block, prefix) == prefix
        assert blocks.problems() == []


def test_the_fault_is_found() -> None:
    blocks = CacheBlocks(4, 2)
    assert blocks.add(1, [1, 2, 3]) == 0 and blocks.add(2, [1, 2, 4]) == 2
    faulty_release(blocks, 1)
    assert any("still reads it" in problem for problem in blocks.problems())
    assert reserved_tokens([1, 4, 5], 4) == 16


def leak(blocks: CacheBlocks, text: int) -> None:
    for block in blocks.tables.pop(text):
        blocks.uses[block] -= 1


def stale(blocks: CacheBlocks, text: int) -> None:
    for block in blocks.tables.pop(text):
        blocks.uses[block] -= 1
        if not blocks.uses[block]:
            blocks.free.append(block)


WRONG: list[tuple[Item, Callable, str]] = [
    (lab14.release, faulty_release, "still reads it|index|uses"),
    (lab14.release, leak, "lost for ever"),
    (lab14.release, stale, "prefix index"),
    (lab14.release, lambda blocks, text: None, "still has its table"),
    (lab14.release, lambda blocks, text: blocks.tables.clear(), "another text|lost"),
    (lab14.release, lambda blocks, text: 1 / 0, "ZeroDivisionError"),
    (lab14.waste, lambda n, b: -sum(n) % b, "each text"),
    (lab14.changing_line, lambda n, c: 0, "always|wrong value|still the same|counted from"),
    (lab14.cached_tokens, lambda p: [len(x) for x in p], "wrong value|not cached before"),
]


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert any(part in result.message for part in said.split("|")), result.message


def test_right_answers_pass() -> None:
    found = solutions("14")
    for item in lab14.ITEMS:
        assert item(found[item.name]).passed, item(found[item.name]).message
    assert str(lab14.score()).startswith("lab 14: 4 of 4 solved")
