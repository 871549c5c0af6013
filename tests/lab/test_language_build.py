"""Catalogues of a made-up lab: updated, marked fuzzy, written, and checked against their source."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from nbformat import NotebookNode

from minillama.lab import build
from minillama.lab.translation import catalogue_files as files
from minillama.lab.translation.language_build import Language
from minillama.lab.translation.translated_notebook import LANGUAGE_CELL, MARKS

LANGUAGE = "zh_CN"
MARK = MARKS[LANGUAGE]


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    """A folder with one made-up lab, its two notebooks, and a complete catalogue."""
    folder = tmp_path / "labs"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "98_made_up.py").write_text(
        "# %% [markdown]\n# # A title\n#\n# A first paragraph of the lab, with `code`.\n#\n# A second one.\n\n"
        '# %%\nprint("a result")\n\n# %% tags=["solution"]\nprint("solved")\n'
    )
    (source,) = build.sources(folder)
    build.solution_path(source).parent.mkdir()
    build._store(build.learner(source), build.learner_path(source))
    build._store(build.solution(source), build.solution_path(source))
    return folder


TEXTS = {
    "A title": "标题", "A first paragraph of the lab, with `code`.": "第一段，有 `code`。", "A second one.": "第二段。",
    "a result": "结果", "solved": "已解答",
}  # fmt: skip


def made_up(labs: Path) -> Language:
    return place(build.language(LANGUAGE, labs))


def place(language: Language) -> Language:
    """The same with a package of its own, which has no messages."""
    return dataclasses.replace(language, locale=language.folder.parent / "package" / "locale")


def fill(language: Language, texts: dict[str, str]) -> None:
    path = language.catalogue_path(language.labs[0])
    catalogue = files.read_catalogue(path, LANGUAGE)
    for entry in catalogue:
        if entry.id in texts:
            entry.string = texts[entry.id]
    files.write_catalogue(catalogue, path, "test", LANGUAGE)


def test_update_write_check(labs: Path) -> None:
    chinese = made_up(labs)
    assert chinese.update(["98"]) == ["lab 98: 0 translated, 0 fuzzy, 5 missing"]
    first = chinese.catalogue_path(chinese.labs[0]).read_bytes()
    assert chinese.update(["98"]) and chinese.catalogue_path(chinese.labs[0]).read_bytes() == first
    fill(chinese, TEXTS)
    chinese.update(["package"])
    assert any("98_made_up.ipynb is older" in line for line in chinese.out_of_step())
    assert chinese.write([])[0] == "lab 98: 5 translated, 0 fuzzy, 0 missing"
    assert chinese.out_of_step() == []
    learner = read(chinese.learner_path(chinese.labs[0]))
    assert learner.cells[0].source == "# 标题\n\n第一段，有 `code`。\n\n第二段。"
    assert [cell.source for cell in learner.cells][2:] == ['print("结果")']
    assert learner.cells[1].id == LANGUAGE_CELL and 'MINILLAMA_LANG"] = "zh_CN"' in learner.cells[1].source


def read(path: Path) -> NotebookNode:
    return build.nbformat.read(path, as_version=4)


def test_a_change_of_the_source_is_noticed(labs: Path) -> None:
    chinese = made_up(labs)
    chinese.update([]), chinese.update(["98"])
    fill(chinese, TEXTS)
    chinese.write([]), chinese.update(["package"])
    source = chinese.labs[0].source
    source.write_text(
        source.read_text().replace("# A first paragraph of the lab,", "# A first, changed paragraph of the lab,")
    )
    changed = made_up(labs)
    (line,) = changed.out_of_step()
    assert "98.po has other messages" in line and "--update-po 98" in line
    assert changed.update(["98"]) == ["lab 98: 4 translated, 1 fuzzy, 0 missing"]
    assert any("labs/98" in line or "98_made_up.ipynb is older" in line for line in changed.out_of_step())
    changed.write(["98"])
    text = read(changed.learner_path(changed.labs[0])).cells[0].source
    assert text == f"# 标题\n\nA first, changed paragraph of the lab, with `code`. {MARK}\n\n第二段。"
    assert "#| msgid" in changed.catalogue_path(changed.labs[0]).read_text(), "a translator sees the old text"


def test_code_that_changes_without_its_texts_is_noticed(labs: Path) -> None:
    chinese = made_up(labs)
    chinese.update(["98"]), fill(chinese, TEXTS), chinese.update(["package"]), chinese.write([])
    source = chinese.labs[0].source
    source.write_text(source.read_text().replace('print("a result")', 'print("a result", 1)'))
    assert any("98_made_up.ipynb is older than source or catalogue" in line for line in made_up(labs).out_of_step())


def test_translations_that_lose_something(labs: Path) -> None:
    chinese = made_up(labs)
    chinese.update(["98"]), chinese.update(["package"])
    fill(chinese, TEXTS | {"A first paragraph of the lab, with `code`.": "第一段。"})
    chinese.write(["98"])
    (line,) = chinese.out_of_step()
    assert "code differs: `code`" in line


def test_outputs_are_those_of_the_english_solution(labs: Path, tmp_path: Path) -> None:
    chinese = made_up(labs)
    chinese.update(["98"]), fill(chinese, TEXTS)
    executed = build.execute(build.solution(chinese.labs[0].source), tmp_path)
    build._store(executed, chinese.labs[0].executed)
    made_up(labs).write(["98"])
    solution = read(chinese.solution_path(chinese.labs[0]))
    outputs = [cell.outputs[0].text for cell in solution.cells if cell.get("outputs")]
    assert outputs == ["a result\n", "solved\n"]
    chinese.labs[0].source.write_text("# %%\nprint(1)\n")
    shutil.rmtree(chinese.solution_path(chinese.labs[0]).parent)
    assert "no solution: 98_made_up.ipynb is older" in made_up(labs).write(["98"])[0]


def test_command_line(labs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "sources", lambda *given, **wanted: [labs / "src" / "98_made_up.py"])
    chinese = build.language
    monkeypatch.setattr(build, "language", lambda name: place(chinese(name, labs)))
    assert build.main(["--lang", LANGUAGE, "--update-po", "98", "package"]) == 0
    assert "lab 98: 0 translated, 0 fuzzy, 5 missing\npackage: 0 translated, 0 fuzzy, " in capsys.readouterr().out
    fill(place(chinese(LANGUAGE, labs)), TEXTS)
    assert build.main(["--lang", LANGUAGE, "--check"]) == 1
    assert "lab 98: 5 translated, 0 fuzzy, 0 missing" in capsys.readouterr().out
    assert build.main(["--lang", LANGUAGE]) == 0 == build.main(["--lang", LANGUAGE, "--check"])
    for wrong in (["--update-po"], ["--lang", LANGUAGE, "77"], ["--lang", "fr"]):
        with pytest.raises(SystemExit):
            build.main(wrong)
    assert "--update-po needs a language" in capsys.readouterr().err
