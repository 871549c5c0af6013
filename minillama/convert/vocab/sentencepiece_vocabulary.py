"""Vocabulary of SentencePiece (`llama` in GGUF files), from tokenizer.model or from a tokenizer.json made of one."""

import re
from collections.abc import Iterator
from pathlib import Path

from minillama.convert.folder.json_files import read_json_if_there
from minillama.convert.vocab.byte_pair_vocabulary import load_tokenizer_json
from minillama.convert.vocab.entries import PREFIX, Entries, listed, text
from minillama.convert.vocab.sentencepiece_file import BYTE, CONTROL, UNKNOWN, UNUSED, read_pieces
from minillama.convert.vocab.special_ids import special_texts
from minillama.convert.vocab.token_looks import TokenType, looks_special, with_spaces
from minillama.errors import FormatError

_KEPT = {UNKNOWN, CONTROL, UNUSED, BYTE}  # other types become normal, also user-defined ones
_NO_PIECE, _ADDED = -10000.0, -1000.0  # scores
_BYTE_TEXT = re.compile("<0x[0-9A-Fa-f]{2}>")


class TokenTable:
    """Texts, scores and types by id; ids without a token are [PADn]."""

    def __init__(self, size: int) -> None:
        self.texts = [f"[PAD{index}]" for index in range(size)]
        self.scores = [_NO_PIECE] * size
        self.types = [int(TokenType.UNUSED)] * size

    def put(self, index: int, token: str, score: float, kind: int) -> None:
        """Set a token; an id outside the vocabulary is left out, as in llama.cpp."""
        if 0 <= index < len(self.texts):
            self.texts[index], self.scores[index], self.types[index] = token, score, int(kind)

    def entries(self, model: str = "llama", pretokenizer: str | None = "default") -> Entries:
        names = {f"{PREFIX}model": text(model)}
        if pretokenizer:
            names[f"{PREFIX}pre"] = text(pretokenizer)
        return names | {
            f"{PREFIX}tokens": listed(self.texts),
            f"{PREFIX}scores": listed(self.scores),
            f"{PREFIX}token_type": listed(self.types),
        }


def sentencepiece_table(folder: Path, size: int | None, *, phi3: bool = False) -> TokenTable:
    """Tokens of tokenizer.model and of the files that add some.

    phi3: tokens of tokenizer.json are added too, and a token is special only if a file says so.
    """
    pieces = read_pieces(folder / "tokenizer.model")
    table = TokenTable(size or len(pieces))
    for index, piece in enumerate(pieces):
        table.put(index, piece.text, piece.score, piece.type if piece.type in _KEPT else TokenType.NORMAL)
    for token, index in read_json_if_there(folder / "added_tokens.json").items():
        table.put(index, token, _ADDED, TokenType.USER_DEFINED)
    for index, token, special in _described(folder, phi3=phi3):
        if special or (looks_special(token) and not phi3):
            table.put(index, token, _ADDED, TokenType.CONTROL)
        else:
            table.put(index, token if phi3 else with_spaces(token), _ADDED, TokenType.USER_DEFINED)
    return table


def _described(folder: Path, *, phi3: bool) -> Iterator[tuple[int, str, bool]]:
    """Id, text and "special" of the tokens that tokenizer_config.json describes, and tokenizer.json for Phi-3."""
    described = read_json_if_there(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    listed_tokens = read_json_if_there(folder / "tokenizer.json").get("added_tokens") or [] if phi3 else []
    try:
        for index, token in described.items():
            yield int(index), str(token["content"]), bool(token.get("special"))
        for token in listed_tokens:
            yield int(token["id"]), str(token["content"]), bool(token.get("special"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the added tokens of {folder} are damaged ({error}); download the folder again") from error


def is_sentencepiece_json(folder: Path) -> bool:
    """True if tokenizer.json was made of a SentencePiece model."""
    content = read_json_if_there(folder / "tokenizer.json")
    model, decoder = content.get("model") or {}, content.get("decoder") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback")) and decoder.get("type") == "Sequence"


def json_table(folder: Path) -> TokenTable:
    """Tokens of such a tokenizer.json; it has no scores, so all are -1000."""
    tokenizer = load_tokenizer_json(folder)
    base = tokenizer.get_vocab_size(with_added_tokens=False)
    special = special_texts(read_json_if_there(folder / "tokenizer_config.json"))
    texts = {index: token for token, index in tokenizer.get_vocab(with_added_tokens=True).items()}
    if sorted(texts) != list(range(len(texts))):
        raise FormatError(f"the token ids of {folder / 'tokenizer.json'} have gaps; download it again")
    table = TokenTable(len(texts))
    for index, token in texts.items():
        if token in special:
            kind = TokenType.CONTROL
        elif index >= base:
            kind = TokenType.USER_DEFINED
        else:
            kind = TokenType.BYTE if _BYTE_TEXT.fullmatch(token) else TokenType.NORMAL
        table.put(index, token, _ADDED, kind)
    return table
