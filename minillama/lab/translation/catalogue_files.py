"""Catalogues: gettext's .po files, one for each lab and one for the package."""

import gettext
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from minillama.atomic_file import atomic_write

WIDTH = 100
HEADER = """\
# {title}
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""


@dataclass(frozen=True)
class Message:
    """A text to translate: its file, and a word for the translator, such as `heading`."""

    text: str
    file: str
    kind: str


@dataclass(frozen=True)
class Counts:
    """Numbers of messages of a catalogue: translated, fuzzy, and missing ones."""

    translated: int
    fuzzy: int
    missing: int

    def __str__(self) -> str:
        return f"{self.translated} translated, {self.fuzzy} fuzzy, {self.missing} missing"

    @property
    def is_complete(self) -> bool:
        return self.translated > 0 and not self.fuzzy and not self.missing


def read_catalogue(path: Path, language: str) -> Catalog:
    """The catalogue of a file; empty if there is no file."""
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language, abort_invalid=True)


def translations(catalogue: Catalog) -> dict[str, str]:
    """The translations to show: neither fuzzy nor empty."""
    return {entry.id: entry.string for entry in catalogue if entry.id and entry.string and not entry.fuzzy}


def counts(catalogue: Catalog, messages: Iterable[Message]) -> Counts:
    """Numbers of the messages by the state of their translation."""
    texts = list(dict.fromkeys(message.text for message in messages))
    entries = [catalogue.get(text) for text in texts]
    fuzzy = sum(entry is not None and bool(entry.string) and entry.fuzzy for entry in entries)
    missing = sum(entry is None or not entry.string for entry in entries)
    return Counts(len(texts) - fuzzy - missing, fuzzy, missing)


def unknown(catalogue: Catalog, messages: Iterable[Message]) -> list[str]:
    """Texts that only one of catalogue and sources has; empty if both are in step."""
    texts = dict.fromkeys(message.text for message in messages)
    ours = dict.fromkeys(entry.id for entry in catalogue if entry.id)
    return [text for text in texts if text not in ours] + [text for text in ours if text not in texts]


def updated(catalogue: Catalog, messages: Iterable[Message], language: str) -> Catalog:
    """The catalogue with the messages of the sources, in their order.

    A changed text keeps the translation of the most similar old one, marked fuzzy."""
    template = Catalog(locale=language)
    for message in messages:
        template.add(message.text, locations=[(message.file, 0)], auto_comments=[message.kind])
    catalogue.update(template, update_creation_date=False)
    return catalogue


def write_catalogue(catalogue: Catalog, path: Path, title: str, language: str) -> None:
    """Write a .po file; the same messages give the same bytes."""
    for entry in catalogue:
        entry.flags -= {"python-format", "python-brace-format"}  # babel's guesses from a percent sign or a brace
        entry.user_comments.clear()  # babel reads the old text of a fuzzy message as one
    body = io.BytesIO()
    write_po(body, catalogue, width=WIDTH, omit_header=True, include_lineno=False, ignore_obsolete=True,
             include_previous=True)  # fmt: skip
    with atomic_write(path) as file:
        file.write(HEADER.format(title=title, language=language).encode() + body.getvalue())


def write_compiled(catalogue: Catalog, path: Path) -> None:
    """Write the translations as the .mo file that gettext reads."""
    with atomic_write(path) as file:
        write_mo(file, catalogue)


def compiled(path: Path) -> dict[str, str]:
    """The translations of a .mo file; empty if there is no file."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        read = gettext.GNUTranslations(file)
    return {text: found for text, found in read._catalog.items() if text}  # type: ignore[attr-defined]


def problems(catalogue: Catalog) -> list[str]:
    """Translations that lose code, mathematics, a link, a field or a cell of a row."""
    found = []
    for text, translation in translations(catalogue).items():
        for name, pattern in FIXED.items():
            ours, theirs = (Counter(re.findall(pattern, each)) for each in (translation, text))
            if ours != theirs:
                differing = ", ".join(sorted((theirs - ours) + (ours - theirs)))
                found.append(f"{name}: {differing}: in {text[:60]!r}")
    return found


FIXED = {
    "code differs": r"`[^`]+`",
    "mathematics differs": r"\$[^$]+\$",
    "a link differs": r"\]\([^)]+\)",
    "the fields differ": r"\{[^{}]+\}",
    "the cells of the row differ": r"(?:^|(?<= ))\|(?= |$)",
}


@dataclass(frozen=True)
class CompiledCatalogue:
    """A catalogue whose .mo file gettext reads, next to it.

    source: what has its messages, such as `the package`. fix: the command that refreshes it.
    """

    path: Path
    language: str
    messages: list[Message]
    source: str
    fix: str

    def update(self, title: str) -> None:
        """Refresh both files from the messages."""
        catalogue = updated(read_catalogue(self.path, self.language), self.messages, self.language)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_catalogue(catalogue, self.path, title, self.language)
        write_compiled(catalogue, self.path.with_suffix(".mo"))

    def compile(self) -> None:
        """Write the .mo file."""
        write_compiled(read_catalogue(self.path, self.language), self.path.with_suffix(".mo"))

    def counts(self) -> Counts:
        """Numbers of translated, fuzzy and missing messages."""
        return counts(read_catalogue(self.path, self.language), self.messages)

    def out_of_step(self) -> list[str]:
        """Lines on outdated files, with the fix, and on lost fields."""
        catalogue, lines = read_catalogue(self.path, self.language), []
        if late := unknown(catalogue, self.messages):
            name = f"{self.path.name} has other messages than {self.source}"
            lines.append(f"{name}, such as {late[0][:60]!r}: run {self.fix}")
        if translations(catalogue) != compiled(self.path.with_suffix(".mo")):
            lines.append(f"{self.path.stem}.mo is not that of {self.path.name}: run {self.fix}")
        return lines + [f"{self.path.name}: {problem}" for problem in problems(catalogue)]
