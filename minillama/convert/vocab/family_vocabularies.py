"""Vocabularies of families: the kind of tokenizer, and corrections of their files.

Each function takes the settings of a folder and the name of a pre-tokenizer to use in place of the found one, and gives
metadata entries.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minillama.convert.folder.folder_config import MOST_TOKENS, FolderConfig
from minillama.convert.folder.json_files import read_json_if_there
from minillama.convert.vocab.byte_pair_vocabulary import byte_pair_entries, load_tokenizer_json
from minillama.convert.vocab.entries import PREFIX, Entries, boolean, identifier
from minillama.convert.vocab.sentencepiece_vocabulary import (
    TokenTable,
    is_sentencepiece_json,
    json_table,
    sentencepiece_table,
)
from minillama.convert.vocab.special_ids import ROLES, SpecialTokens, merge_entries, read_special_tokens
from minillama.convert.vocab.token_looks import TokenType
from minillama.errors import UnsupportedError

_NO_SPACE: Entries = {f"{PREFIX}add_space_prefix": boolean(False)}
# Tokens of Gemma 4 that the parser of its answers reads, and that are therefore shown.
_SHOWN = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'}


def _has_model(config: FolderConfig) -> bool:
    return (config.folder / "tokenizer.model").is_file()


def _settings(folder: Path) -> Mapping[str, Any]:
    return read_json_if_there(folder / "tokenizer_config.json")


def _table_entries(config: FolderConfig, table: TokenTable) -> Entries:
    return table.entries() | read_special_tokens(config.folder, size=len(table.texts)).entries()


def sentencepiece_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """tokenizer.model."""
    return _table_entries(config, sentencepiece_table(config.folder, config.tokens))


def byte_pair_tokenizer(
    config: FolderConfig, pretokenizer: str | None, roles: tuple[str, ...] = ROLES, size: int | None = None
) -> Entries:
    """tokenizer.json with byte pairs."""
    return _byte_pairs(config, pretokenizer, read_special_tokens(config.folder, roles), size)


def _byte_pairs(
    config: FolderConfig, pretokenizer: str | None, special: SpecialTokens, size: int | None = None
) -> Entries:
    tokens = byte_pair_entries(config.folder, size or config.tokens, pretokenizer)
    return tokens | merge_entries(config.folder) | special.entries()


def sentencepiece_or_byte_pairs(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """tokenizer.model if it is there."""
    return (sentencepiece_tokenizer if _has_model(config) else byte_pair_tokenizer)(config, pretokenizer)


def padded_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """Either, with a number of tokens that is a multiple of 8."""
    size = -(-config.size("vocab_size", most=MOST_TOKENS) // 8) * 8
    if _has_model(config):
        return _table_entries(config, sentencepiece_table(config.folder, size))
    return byte_pair_tokenizer(config, pretokenizer, size=size)


def llama_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """SentencePiece for Llama 1 and 2, from either file; byte pairs for Llama 3."""
    if (config.folder / "tekken.json").is_file() and not (config.folder / "tokenizer.json").is_file():
        raise UnsupportedError(f"{config.folder} has a tekken.json only; add tokenizer.json from a copy of the model")
    prefix = _settings(config.folder).get("add_prefix_space")
    entries: Entries = {} if prefix is None else {f"{PREFIX}add_space_prefix": boolean(bool(prefix))}
    if not _has_model(config) and is_sentencepiece_json(config.folder):
        entries |= _table_entries(config, json_table(config.folder))
    else:
        entries |= sentencepiece_or_byte_pairs(config, pretokenizer)
    if config.tokens == 32016:  # Code Llama
        entries[f"{PREFIX}eot_token_id"] = identifier(32010)
    if config.tokens == 49152:  # small Granite models
        entries[f"{PREFIX}add_bos_token"] = boolean(False)
    return entries


def phi3_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """SentencePiece with the added tokens of all files; Phi-4 has byte pairs."""
    if not _has_model(config) or _settings(config.folder).get("tokenizer_class") == "GPT2Tokenizer":
        return byte_pair_tokenizer(config, pretokenizer)
    return _table_entries(config, sentencepiece_table(config.folder, config.tokens, phi3=True))


def ernie_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    prefix = _settings(config.folder).get("add_prefix_space")
    more = {} if prefix is None else {f"{PREFIX}add_space_prefix": boolean(bool(prefix))}
    return sentencepiece_tokenizer(config, pretokenizer) | more


def spaceless_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """SentencePiece without a space before the text: Gemma."""
    return sentencepiece_tokenizer(config, pretokenizer) | _NO_SPACE


def gemma_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """Gemma 1, whose files do not name the end of a turn."""
    turn = {f"{PREFIX}eot_token_id": identifier(107)}
    return sentencepiece_tokenizer(config, pretokenizer) | turn | _NO_SPACE


def gemma3_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    return (spaceless_tokenizer if _has_model(config) else byte_pair_tokenizer)(config, pretokenizer)


def gemma4_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """Byte pairs of characters, with SentencePiece's spaces."""
    table = json_table(config.folder)
    table.types = [
        int(TokenType.USER_DEFINED) if token in _SHOWN else kind
        for token, kind in zip(table.texts, table.types, strict=True)
    ]
    entries = table.entries("gemma4", None) | merge_entries(config.folder)
    entries |= read_special_tokens(config.folder).entries() | _NO_SPACE
    return entries | {f"{PREFIX}add_bos_token": boolean(True)}


def vocabulary_rows(config: FolderConfig) -> int:
    """Number of tokens: rows of the embedding past it are never used."""
    if _has_model(config):
        return len(sentencepiece_table(config.folder, config.tokens).texts)
    content = read_json_if_there(config.folder / "tokenizer.json")
    return len((content.get("model") or {}).get("vocab") or ()) + len(content.get("added_tokens") or ())


def _with_roles(config: FolderConfig, pretokenizer: str | None, size: int | None, **roles: str) -> Entries:
    """Byte pairs, with the texts of roles that the files do not name."""
    ids = load_tokenizer_json(config.folder)
    special = read_special_tokens(config.folder)
    for role, token in roles.items():
        special.set(role, ids.token_to_id(token))
    return _byte_pairs(config, pretokenizer, special, size)


def glm4_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    end = "<|endoftext|>"
    return _with_roles(config, pretokenizer, None, eos=end, eot="<|user|>", unk=end, bos=end)


def chatglm_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    end = "<|endoftext|>"
    size = config.size("padded_vocab_size", "vocab_size", most=MOST_TOKENS)
    return _with_roles(config, pretokenizer, size, eos=end, eot="<|user|>", unk=end)


def glm_moe_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    return _with_roles(
        config, pretokenizer, None, bos="[gMASK]", eot="<|user|>", unk="<|endoftext|>", eom="<|observation|>"
    )


def hunyuan_tokenizer(config: FolderConfig, pretokenizer: str | None) -> Entries:
    """Byte pairs, with `eod_token_id` as the end of a text.

    The end of a turn is the first of several in generation_config.json.
    """
    roles = tuple(role for role in ROLES if role != "pad" or (config.find("pad_token_id") or 0) >= 0)
    entries = byte_pair_tokenizer(config, pretokenizer, roles)
    if (end := config.find("eod_token_id")) is not None:
        entries[f"{PREFIX}eos_token_id"] = identifier(end)
    ends = read_json_if_there(config.folder / "generation_config.json").get("eos_token_id")
    if isinstance(ends, list) and len(ends) > 1:
        entries[f"{PREFIX}eot_token_id"] = identifier(ends[0])
    return entries
