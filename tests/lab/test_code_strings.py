"""Strings of code cells: those that a reader sees change, names of records and code stay."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from translated_texts import shouted, without_texts

from minillama.lab import build
from minillama.lab.translation.code_strings import CodeStringError, code_strings, record_names, translated_code
from minillama.lab.translation.translated_notebook import code_of

SOURCES = build.sources()

each_lab = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


@each_lab
def test_code_differs_in_texts_only(source: Path) -> None:
    for notebook in (build.learner(source), build.solution(source)):
        before = code_of(notebook)
        after = translated_code(before, shouted)
        assert [without_texts(cell) for cell in after] == [without_texts(cell) for cell in before]
        assert record_names(after) == record_names(before), "names of records stay"
        messages = {string.message for string in code_strings(before)}
        assert not code_strings(before) or translated_code(before, shouted) != before
        assert not messages & names_of_records(before)


def names_of_records(cells: list[str]) -> set[str]:
    """Texts of the first two arguments of predictions and measurements."""
    return {ast.literal_eval(name) for name in record_names(cells) if name[:1] in "'\""}


def test_the_strings_that_a_reader_sees() -> None:
    cells = [
        'Prediction("99", "a record", "How many?", "tokens")\nmeasurement("99", "another record", 1.0, "share")',
        'parts = {"fast token": 1}\nshow(bars(list(parts), parts.values(), "A title", axis="seconds"))',
        'found = "as many" if x == "other text" else f"{x} of {y}"\nprint(f"result: {found}", sep="no words")',
        'for name, part in (("top_p", "the weights"), ("min_p", "the cache")):\n    print(name, part, OPTIONS[name])',
        'KEYS = {"a key": 1}\nprint(list(KEYS), KEYS["a key"])',
        'ORDERS = {"last": "xt", "first": "tx"}\nDropdown("order", "--order", tuple(ORDERS), "last", "help text")',
        "print(ORDERS[settings['order']])",
        'for kind, n in (("one", 1), ("as needed", 2)):\n    print(plain_table(("batching", "seconds"), [(kind, n)]))',
        'curves = {"p95 gap": [1]}\nshow(two_sided(x, curves, "By size", "tokens", "ms"))\nprint(found() or "none")',
        'show(sweep({name: x for name, x in (("part one", 1), ("part two", 2))}, {}, "A sweep", "KB", "ms"))',
        'print("two "\n      f"parts of {x}")\nlog.write("not seen")\nprint(1, "5 %")',
    ]
    found = [(string.cell, string.message) for string in code_strings(cells)]
    assert found == [
        (0, "How many?"), (1, "fast token"), (1, "A title"), (1, "seconds"),
        (2, "as many"), (2, "{x} of {y}"), (2, "result: {found}"), (3, "the weights"), (3, "the cache"),
        (5, "last"), (5, "first"), (5, "--order"), (5, "last"), (5, "help text"),
        (7, "one"), (7, "as needed"), (7, "batching"), (7, "seconds"),
        (8, "p95 gap"), (8, "By size"), (8, "tokens"), (8, "ms"), (8, "none"),
        (9, "part one"), (9, "part two"), (9, "A sweep"), (9, "KB"), (9, "ms"),
        (10, "two parts of {x}"),
    ]  # fmt: skip
    done = translated_code(cells, shouted)
    assert done[2].startswith('found = "AS MANY" if x == "other text" else f"{x} OF {y}"\n')
    assert done[10].startswith('print(f"TWO PARTS OF {x}")\nlog.write("not seen")')


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_translation_is_a_text(before: str, after: str) -> None:
    (changed,) = translated_code([f"é = 1; print({before + 'words'!r}); y = 'ü'"], lambda message: after)
    _, call, last = ast.parse(changed).body
    assert ast.literal_eval(call.value.args[0]) == after and ast.literal_eval(last.value) == "ü"


@pytest.mark.parametrize("wrong", ["no field", "{y} words", "{x} {x} words", "{x", 'a " quote {x}', "{x!r} words"])
def test_other_fields_are_refused(wrong: str) -> None:
    with pytest.raises(CodeStringError):
        translated_code(['print(f"{x} words")'], lambda message: wrong)
