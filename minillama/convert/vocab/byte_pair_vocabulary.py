"""Vocabulary of byte pairs (`gpt2` in GGUF files), from tokenizer.json."""

from pathlib import Path

from tokenizers import Tokenizer

from minillama.convert.folder.json_files import read_json, read_json_if_there
from minillama.convert.vocab.entries import PREFIX, Entries, listed, text
from minillama.convert.vocab.known_pretokenizer import pretokenizer_name
from minillama.convert.vocab.special_ids import special_texts
from minillama.convert.vocab.token_looks import TokenType, looks_special, with_spaces
from minillama.errors import FormatError, ResourceError


def load_tokenizer_json(folder: Path) -> Tokenizer:
    """The tokenizer of a folder; raises ResourceError and FormatError. Nothing of the folder runs."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ResourceError(f"{folder} has no tokenizer.json or tokenizer.model; download it")
    read_json(path)  # for its messages
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception
        raise FormatError(f"{path} is no tokenizer ({error}); download it again") from error


def byte_pair_entries(folder: Path, size: int | None, pretokenizer: str | None) -> Entries:
    """Tokens, types and pre-tokenizer. size: tokens of the model; ids without a text become [PADn]."""
    tokenizer = load_tokenizer_json(folder)
    texts = {index: token for token, index in tokenizer.get_vocab(with_added_tokens=True).items()}
    size = len(texts) if size is None else size
    if max(texts, default=0) >= size:
        raise FormatError(
            f"tokenizer.json has the token id {max(texts)}, config.json a vocab_size of {size}; download both again"
        )
    added = tokenizer.get_added_tokens_decoder()
    special = special_texts(read_json_if_there(folder / "tokenizer_config.json"))
    tokens, types = [], []
    for index in range(size):
        token, kind = texts.get(index, f"[PAD{index}]"), TokenType.NORMAL
        if index not in texts:
            kind = TokenType.UNUSED
        elif index in added:
            token = token if added[index].normalized else _normalised(tokenizer, token)
            kind = TokenType.CONTROL
            if not (added[index].special or texts[index] in special or looks_special(token)):
                token, kind = with_spaces(token), TokenType.USER_DEFINED
        tokens.append(token)
        types.append(int(kind))
    return {
        f"{PREFIX}model": text("gpt2"),
        f"{PREFIX}pre": text(pretokenizer or pretokenizer_name(folder, tokenizer)),
        f"{PREFIX}tokens": listed(tokens),
        f"{PREFIX}token_type": listed(types),
    }


def _normalised(tokenizer: Tokenizer, token: str) -> str:
    """The text that a token decodes to."""
    ids = tokenizer.encode(token, add_special_tokens=False).ids
    return tokenizer.decode(ids, skip_special_tokens=False)
