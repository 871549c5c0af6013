"""The pages of the solved labs: made of the stored notebooks, without anything from other sites."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook of MkDocs, with formulas left as they are: their converter comes with the extra `docs`."""
    spec = importlib.util.spec_from_file_location("solved_labs", ROOT / "docs" / "solved_labs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "_formula", lambda match: f"<math>{match[1] or match[2]}</math>")
    return module


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    title = {"cell_type": "markdown", "source": ["# Lab 99 · Try\n", "\n", "Words."], "metadata": {}}
    return {"cells": [title, *cells]}


def code(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}, "outputs": list(outputs)}


def test_every_solution_has_a_page(hook: ModuleType) -> None:
    pages = hook.pages()
    names = [path.stem for path in sorted((ROOT / "labs" / "solutions").glob("*.ipynb"))]
    assert [f"solved/{name}.md" in pages for name in names] == [True] * len(names) and len(names) > 15
    assert re.findall(r"\]\((\w+)\.md\)", pages["solved/index.md"]) == names


def test_all_cells_and_outputs_are_there(hook: ModuleType) -> None:
    pages = hook.pages()
    for path in (ROOT / "labs" / "solutions").glob("*.ipynb"):
        page, cells = pages[f"solved/{path.stem}.md"], json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if cell["cell_type"] == "code":
                assert "".join(cell["source"]).strip("\n") in page
                for output in cell["outputs"]:
                    text = output.get("text") or output["data"].get("text/html") or output["data"]["text/plain"]
                    assert "".join(text).strip("\n") in page


def test_the_order_of_a_page(hook: ModuleType) -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": ["3\n"]}
    page = hook.page(notebook(code("1 + 2", stream, tags=("solution",))), "Line.", "Solution")
    assert page == "# Lab 99 · Try\n\nLine.\n\nWords.\n\n**Solution**\n\n``` python\n1 + 2\n```\n\n``` text\n3\n```\n"


def test_an_output_from_another_site_is_an_error(hook: ModuleType) -> None:
    for bad in ('<script src="x.js">', '<img src="https://example.org/a.png">', "<img src='//example.org/a.png'>"):
        output = {"output_type": "display_data", "data": {"text/html": bad, "text/plain": "a"}}
        with pytest.raises(ValueError, match="other sites"):
            hook.page(notebook(code("show()", output)), "", "")


def test_formulas_but_not_in_code(hook: ModuleType) -> None:
    text = hook.markdown_cell("$a_1$ and `$HOME` and\n```sh\necho $A $B\n```\n$$\\sqrt x$$ costs 5$")
    assert text == "<math>a_1</math> and `$HOME` and\n```sh\necho $A $B\n```\n<math>\\sqrt x</math> costs 5$"


def test_a_fence_in_a_fence(hook: ModuleType) -> None:
    assert hook.fenced("a\n```\nb", "text") == "```` text\na\n```\nb\n````"
    assert hook.fenced("\n", "text") == ""


@pytest.mark.parametrize(
    ("variable", "address", "found"),
    [
        ("", None, None),
        ("", "https://example.org/me/it", None),
        ("", "https://github.com/me/it.git", "me/it"),
        ("you/it", "https://github.com/me/it", "you/it"),
    ],
)
def test_repository(
    variable: str, address: str | None, found: str | None, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINILLAMA_REPOSITORY", variable)
    assert hook.repository(address) == found


def test_badges_open_the_exercise(hook: ModuleType) -> None:
    page = hook.pages("me/it")["solved/04_sampling.md"]
    (colab, binder) = re.findall(r"\]\((https://[^)]+)\)", page)
    assert colab.endswith("/github/me/it/blob/HEAD/labs/04_sampling.ipynb")
    assert binder.endswith("/gh/me/it/HEAD?urlpath=lab/tree/labs/04_sampling.ipynb")
    images = re.findall(r"!\[[^]]+\]\(\.\./(images/[^)]+)\)", page)
    assert len(images) == 2 and all((ROOT / "docs" / image).is_file() for image in images)
