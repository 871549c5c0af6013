"""Blocks of markdown: nothing lost, lists and tables keep their form."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.lab import build
from minillama.lab.translation.markdown_blocks import blocks, translated_markdown
from minillama.lab.translation.translated_notebook import translated_notebook

LANGUAGE = "zh_CN"
SOURCES = build.sources()

each_lab = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


@each_lab
def test_an_empty_catalogue_gives_the_english_notebook(source: Path) -> None:
    for notebook in (build.learner(source), build.solution(source)):
        assert translated_notebook(notebook, {}, LANGUAGE) == notebook
        for cell in notebook.cells:
            assert translated_markdown(cell.source, lambda message: None) == cell.source


LINES = st.sampled_from(
    ["# A heading", "words of a paragraph", "* an item", "  its second line", "1. one", "| a | row |", "|---|---|", "",
     "$$x$$", "$$", "```python", "```", "<b>raw</b>", "    code", "| | |", "5 %", "\tx", "- - -", "> quoted text"]
)  # fmt: skip


@given(st.lists(LINES | st.text(alphabet="ab |*#`$<>-1.\t", max_size=8), max_size=12))
def test_blocks_are_the_text(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert "\n".join(block.lines for block in blocks(text)) == text
    assert translated_markdown(text, lambda message: None) == text
    said = translated_markdown(text, lambda message: message)
    assert said.split() == text.split()


def test_a_year_at_the_start_of_a_line_is_no_item() -> None:
    """A number above 1 begins an item only after another item, as in CommonMark."""
    found = [
        (block.kind, block.prefix, block.message) for block in blocks("As in (Orca,\n2022) it is.\n1. one\n2. two")
    ]
    assert found == [("paragraph", "", "As in (Orca, 2022) it is."), ("item", "1. ", "one"), ("item", "2. ", "two")]


def test_kinds_of_blocks() -> None:
    text = (
        "# Title\n\nA line\nand another.\n* one\n  goes on\n* two\n\n| a | b |\n|---|---|\n| the c | |\n\n$$x\n+ y$$\n"
        "```\nprint(words)\n```\n<details><summary>A hint</summary>\n\n</details>"
    )
    found = [(block.kind, block.message) for block in blocks(text) if block.message]
    assert found == [
        ("heading", "Title"), ("paragraph", "A line and another."), ("item", "one goes on"), ("item", "two"),
        ("row", "| a | b |"), ("row", "| the c | |"), ("summary", "A hint"),
    ]  # fmt: skip
    done = translated_markdown(text, {"one goes on": "ONE", "Title": "TITLE"}.get, "(?)")
    assert done.startswith(
        "# TITLE\n\nA line\nand another. (?)\n* ONE\n* two (?)\n\n| a | b (?) |\n|---|---|\n| the c | (?) |"
    )
