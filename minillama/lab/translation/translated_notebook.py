"""A notebook in another language: the same cells with translated texts."""

import copy
from collections.abc import Mapping, Sequence

import nbformat
from nbformat import NotebookNode

from minillama.lab.translation.catalogue_files import Message
from minillama.lab.translation.code_strings import code_strings, translated_code
from minillama.lab.translation.markdown_blocks import blocks, translated_markdown
from minillama.text_language import VARIABLE

LANGUAGE_CELL = "language"  # the id of the cell that sets the language
# At the end of a block without a translation, and the comment of the cell above.
MARKS = {"zh_CN": "<sub>未译</sub>"}
COMMENTS = {"zh_CN": "检查、预测和图表的文字使用中文"}


def lab_messages(notebooks: Sequence[NotebookNode], file: str) -> list[Message]:
    """The messages of a lab's notebooks, in the order of the cells."""
    found: dict[str, Message] = {}
    for notebook in notebooks:
        shown: dict[int, list[str]] = {}
        for string in code_strings(code_of(notebook)):
            shown.setdefault(string.cell, []).append(string.message)
        place = 0
        for cell in notebook.cells:
            if cell.cell_type == "code":
                texts = [(text, "code") for text in shown.get(place, [])]
                place += 1
            else:
                texts = [(block.message, block.kind) for block in blocks(cell.source) if block.message]
            for text, kind in texts:
                found.setdefault(text, Message(text, file, kind))
    return list(found.values())


def code_of(notebook: NotebookNode) -> list[str]:
    """The sources of a notebook's code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def translated_notebook(notebook: NotebookNode, translations: Mapping[str, str], language: str) -> NotebookNode:
    """The notebook with the translations of its texts; its cells keep their ids.

    A block without a translation keeps its text, with a mark. Without any translation it is the notebook itself.
    """
    made = copy.deepcopy(notebook)
    if not translations:
        return made
    codes = iter(translated_code(code_of(notebook), translations.get))
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source = next(codes)
        else:
            cell.source = translated_markdown(cell.source, translations.get, MARKS[language])
    made.cells.insert(1, _language_cell(language))  # after the card, before all code
    made.metadata["minillama"]["language"] = language
    return made


def _language_cell(language: str) -> NotebookNode:
    source = f'import os\n\nos.environ["{VARIABLE}"] = "{language}"  # {COMMENTS[language]}'
    cell = nbformat.v4.new_code_cell(source)
    cell["id"] = LANGUAGE_CELL
    return cell


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The notebook with the outputs of the executed one, by the ids of the cells."""
    made = copy.deepcopy(notebook)
    cells = {cell.id: cell for cell in executed.cells if cell.cell_type == "code"}
    for cell in made.cells:
        if cell.id in cells:
            cell.outputs = copy.deepcopy(cells[cell.id].outputs)
            cell.execution_count = cells[cell.id].execution_count
    return made
