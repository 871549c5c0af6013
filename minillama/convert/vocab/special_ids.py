"""Special tokens of a folder, which of them are added to texts, and merges.

The files disagree now and then. The order of llama.cpp's converter decides: tokenizer_config.json with the ids of
tokenizer.json, then config.json; and the post-processor of tokenizer.json for added tokens.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minillama.convert.folder.json_files import read_json_if_there, read_text
from minillama.convert.vocab.entries import PREFIX, Entries, boolean, identifier, listed
from minillama.convert.vocab.template_files import template_entries
from minillama.errors import FormatError

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Role in Hugging Face's files -> GGUF's name; llama.cpp has no key for the others.
KEYS = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask",
        "eot": "eot", "eom": "eom"}  # fmt: skip


@dataclass
class SpecialTokens:
    """Ids by role, and `added`: is the token of a role put around each text?"""

    ids: dict[str, int] = field(default_factory=dict)
    added: dict[str, bool] = field(default_factory=dict)
    template: Entries = field(default_factory=dict)
    normalizer: dict[str, bool] = field(default_factory=dict)

    def set(self, role: str, token: object, size: int | None = None) -> None:
        """Set the id of a role that has none yet, if it is a token's."""
        if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < (size or token + 1):
            self.ids.setdefault(role, token)

    def entries(self) -> Entries:
        """Metadata keys, in the order of llama.cpp's converter."""
        found: Entries = {
            f"{PREFIX}{KEYS[role]}_token_id": identifier(token) for role, token in self.ids.items() if role in KEYS
        }
        found |= {
            f"{PREFIX}add_{role}_token": boolean(value)
            for role, value in self.added.items()
            if role in ("bos", "eos", "sep")
        }
        return found | self.template | {f"{PREFIX}normalizer.{k}": boolean(v) for k, v in self.normalizer.items()}


def read_special_tokens(folder: Path, roles: tuple[str, ...] = ROLES, size: int | None = None) -> SpecialTokens:
    """Read the special tokens of a folder.

    size: the number of tokens; ids outside are left out.
    """
    tokenizer = read_json_if_there(folder / "tokenizer.json")
    settings = read_json_if_there(folder / "tokenizer_config.json")
    special = SpecialTokens()
    _read_normalizer(special, tokenizer.get("normalizer"))
    names = {role: _content(settings.get(f"{role}_token")) for role in roles}
    if tokenizer:
        names = _read_post_processor(special, tokenizer, names, bool(settings))
    if settings:
        special.template = template_entries(folder, settings)
        ids = _added_ids(tokenizer)
        for role, name in names.items():
            if isinstance(added := settings.get(f"add_{role}_token"), bool):
                special.added.setdefault(role, added)
            if name is not None:
                special.set(role, ids.get(name), size)
    config = read_json_if_there(folder / "config.json")
    text_part = config.get("text_config")
    for role in names:
        token = config.get(f"{role}_token_id")
        if token is None and isinstance(text_part, dict):
            token = text_part.get(f"{role}_token_id")
        special.set(role, token, size)
    return special


def read_merges(folder: Path) -> list[str]:
    """Merges of byte pairs, `left right`; spaces inside a part become Ġ."""
    merges = (read_json_if_there(folder / "tokenizer.json").get("model") or {}).get("merges") or []
    if merges and isinstance(merges[0], str):
        return merges
    if merges:
        return [" ".join(part.replace(" ", chr(ord(" ") + 256)) for part in pair) for pair in merges]
    path = folder / "merges.txt"
    lines = read_text(path).splitlines() if path.is_file() else []
    parts = [line.split() for line in lines if not line.startswith("#version")]
    return [" ".join(pair) for pair in parts if len(pair) == 2]


def merge_entries(folder: Path) -> Entries:
    merges = read_merges(folder)
    if not merges:
        raise FormatError(f"{folder} has no merges (tokenizer.json or merges.txt); download the folder again")
    return {f"{PREFIX}merges": listed(merges)}


def special_texts(settings: dict[str, Any]) -> set[str]:
    """Texts of the tokens that tokenizer_config.json calls special."""
    named = [settings.get(f"{role}_token") for role in ROLES]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(key) or []
        named += more.values() if isinstance(more, dict) else more
    return {found for found in map(_content, named) if found is not None}


def _content(token: Any) -> str | None:
    """The text of a token, stated as a text or as an object."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _added_ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Text -> id of added tokens; the first of equal texts."""
    found: dict[str, int] = {}
    for token in tokenizer.get("added_tokens") or []:
        found.setdefault(token.get("content"), token.get("id"))
    return found


def _read_normalizer(special: SpecialTokens, normalizer: Any) -> None:
    if not isinstance(normalizer, dict):
        return
    kind = normalizer.get("type")
    if kind == "Lowercase":
        special.normalizer["lowercase"] = True
    elif kind == "StripAccents":
        special.normalizer["strip_accents"] = True
    elif kind == "Sequence":
        for part in normalizer.get("normalizers") or []:
            _read_normalizer(special, part)


def _read_post_processor(
    special: SpecialTokens, tokenizer: dict[str, Any], names: dict[str, str | None], stated: bool
) -> dict[str, str | None]:
    """Read from tokenizer.json which tokens are added; returns the roles' texts.

    The template overrides the texts of tokenizer_config.json: a first token that has no role is BOS, and another last
    token than EOS is EOS. The old EOS then ends a turn (eot).
    """
    names = {"bos": None, "eos": None, "cls": None, **names}
    names["bos"] = names["bos"] or names["cls"]
    names["eos"] = names["eos"] or names.get("sep")
    processor = tokenizer.get("post_processor") or {}
    for part in processor.get("processors") or [processor]:
        if part.get("type") == "ByteLevel":
            special.added.setdefault("bos", False)
            special.added.setdefault("eos", False)
        elif part.get("type") == "TemplateProcessing":
            _read_template(special, part, names, stated)
    return names


def _read_template(special: SpecialTokens, part: dict[str, Any], names: dict[str, str | None], stated: bool) -> None:
    single = part.get("single") or []
    first, last = ((single[end].get("SpecialToken") or {}).get("id") if len(single) > 1 else None for end in (0, -1))
    if first:
        if not stated:
            names["bos"] = first
        elif first not in (names["bos"], names["cls"]):
            names["bos"], names["cls"] = names["bos"] or first, names["cls"] or first
        special.added["bos"] = first in (names["bos"], names["cls"])
    if last:
        if stated and last != names["eos"]:
            names["eot" if "eot" not in names else "eom"] = names["eos"]
        names["eos"] = last
        special.added["eos"] = True
    if _has_separator(part, first, last, names):
        special.added["sep"] = True
    elif part.get("pair") and _inner_pair(part, first, last):
        special.added["sep"] = False


def _inner_pair(part: dict[str, Any], first: str | None, last: str | None) -> list[dict[str, Any]]:
    """The parts between the two texts in the template of a pair."""
    pair = part.get("pair") or []
    ids = [(piece.get("SpecialToken") or {}).get("id") for piece in pair]
    start = 1 if ids and first and ids[0] == first else 0
    end = len(pair) - 1 if ids and last and ids[-1] == last else len(pair)
    inner = pair[start:end]
    texts = [(piece.get("Sequence") or {}).get("id") for piece in inner]
    return inner[1:-1] if len(inner) > 1 and (texts[0], texts[-1]) == ("A", "B") else []


def _has_separator(part: dict[str, Any], first: str | None, last: str | None, names: dict[str, str | None]) -> bool:
    inner = [(piece.get("SpecialToken") or {}).get("id") for piece in _inner_pair(part, first, last)]
    ends = {names.get("sep"), names.get("eos")} - {None}
    return bool(inner) and ((inner[0] in ends and not last) or (len(inner) == 2 and inner[1] in ends))
