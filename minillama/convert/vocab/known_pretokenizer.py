"""Name of a pre-tokenizer, by the hash of token ids or by its expressions."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from minillama.convert.folder.json_files import read_json, read_json_if_there
from minillama.convert.vocab.pretokenizer_hashes import HASHES, TEXT, hash_of
from minillama.errors import UnsupportedError, quoted

_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|"
_SLASHED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
_DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _BLANKS
)
BYTE_LEVEL, DIGITS = "ByteLevel", "Digits"

# Expressions in tokenizer.json, in order -> name in GGUF files.
EXPRESSIONS: dict[tuple[str, ...], str] = {
    (_END + "|" + _WORDS % r"\p{N}{1,3}" + _BLANKS,): "llama-bpe",
    (_END + "|" + _WORDS % r"\p{N}" + _BLANKS,): "qwen2",
    (_WORDS % r"\p{N}" + _BLANKS,): "ufakzeka",
    (
        rf"{_END}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}",
    ): "qwen35",
    (r"\p{N}{1,3}", _END + "|" + _WORDS % r"\p{N}+" + _BLANKS): "minicpm5",
    (_CASED % ("", "") + r"\p{N}" + _SLASHED + _BLANKS,): "tekken",
    (_CASED % (f"{_END}?", f"{_END}?") + r"\p{N}{1,3}" + _SLASHED + _BLANKS,): "gpt-4o",
    (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK): "deepseek-v3",
    (BYTE_LEVEL,): "gpt-2",
    (DIGITS, BYTE_LEVEL): "smollm",
}
WITHOUT_MERGES = {"llama-bpe": "smaug-bpe"}  # the same expressions, and a whole word is no token without its merges


def pretokenizer_name(folder: Path, tokenizer: Tokenizer) -> str:
    """The name for `tokenizer.ggml.pre`; raises UnsupportedError for an unknown pre-tokenizer."""
    for ids in _candidates(folder, tokenizer):
        if (found := HASHES.get(hash_of(ids))) is not None:
            return found
    content = read_json(folder / "tokenizer.json")
    expressions = tuple(_expressions(content.get("pre_tokenizer")))
    found = EXPRESSIONS.get(expressions)
    if found is None:
        raise UnsupportedError(
            f"the pre-tokenizer of {folder / 'tokenizer.json'} is unknown: {quoted(expressions)}; name one that splits "
            "alike with --pretokenizer, such as llama-bpe or qwen2"
        )
    ignores_merges = (content.get("model") or {}).get("ignore_merges")
    return found if ignores_merges else WITHOUT_MERGES.get(found, found)


def _candidates(folder: Path, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of the text, with the added tokens of either file."""
    ids = tokenizer.encode(TEXT).ids
    plain = tokenizer.encode(TEXT, add_special_tokens=False).ids
    settings = read_json_if_there(folder / "tokenizer_config.json")
    bos, eos = (_token_id(tokenizer, settings.get(f"{role}_token")) for role in ("bos", "eos"))
    return [ids, plain, [*bos, *plain], [*plain, *eos], [*bos, *plain, *eos]]


def _token_id(tokenizer: Tokenizer, token: Any) -> list[int]:
    text = token.get("content") if isinstance(token, dict) else token
    found = tokenizer.token_to_id(text) if isinstance(text, str) else None
    return [] if found is None else [found]


def _expressions(part: Any) -> list[str]:
    """Expressions of a pre-tokenizer and its parts, in order."""
    if not isinstance(part, dict):
        return []
    kind = part.get("type")
    if kind == "Sequence":
        return [text for inner in part.get("pretokenizers") or [] for text in _expressions(inner)]
    if kind == "Split":
        pattern = part.get("pattern") or {}
        return [str(pattern.get("Regex", pattern.get("String")))]
    if kind == BYTE_LEVEL:
        return [BYTE_LEVEL] if part.get("use_regex", True) else []
    return [str(kind)]
