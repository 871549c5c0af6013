"""Chat templates of a folder: in tokenizer_config.json, or in files of their own."""

import re
from pathlib import Path
from typing import Any

from minillama.convert.folder.json_files import read_json, read_text
from minillama.convert.vocab.entries import Entries, listed, text

KEY = "tokenizer.chat_template"


def template_entries(folder: Path, settings: dict[str, Any]) -> Entries:
    """Metadata keys of the chat template, or of several with names; empty without one.

    settings: tokenizer_config.json, whose template counts before those of files.
    """
    found = settings.get("chat_template", _from_files(folder))
    if isinstance(found, str):
        return {KEY: text(found)}
    entries: Entries = {}
    named = {}
    for choice in found if isinstance(found, list) else []:
        if isinstance(choice, dict) and isinstance(choice.get("template"), str) and choice.get("name"):
            named[re.sub("[^A-Za-z0-9]", "_", str(choice["name"]))] = choice["template"]
    default = named.pop("default", None)
    entries |= {f"{KEY}.{name}": text(template) for name, template in named.items()}
    if named:
        entries["tokenizer.chat_templates"] = listed(list(named))
    if default is not None:
        entries[KEY] = text(default)
    return entries


def _from_files(folder: Path) -> object:
    path = folder / "chat_template.jinja"
    if path.is_file():
        more = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        if not more:
            return read_text(path)
        return [
            {"name": "default", "template": read_text(path)},
            *({"name": other.stem, "template": read_text(other)} for other in more),
        ]
    path = folder / "chat_template.json"
    return read_json(path).get("chat_template") if path.is_file() else None
