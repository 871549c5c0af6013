"""The tokenizer: text to ids and back, to the id what llama.cpp does (src/llama-vocab.cpp)."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from minillama.errors import OptionError
from minillama.tokenizer.split_special_tokens import SpecialToken, split_special
from minillama.tokenizer.streaming_decoder import StreamDecoder
from minillama.tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

log = logging.getLogger("minillama")

# The clean-up of a finished text: blanks before punctuation, around a lone apostrophe, before a contraction.
CLEAN_UP = ((rb" (?=[?!.,])", b""), (rb" ' ", b"'"), (rb" (?='(?:[sm]|re|ve))", b""))


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text <-> token ids. Made by `load_tokenizer`.

    `merge` turns a text without special tokens into ids, `normal_piece` a normal token's text into its bytes.
    `add_space_prefix`: a blank is put before the text, and before each text that follows a special token.
    """

    vocabulary: Vocabulary
    merge: Callable[[str], list[int]] = field(repr=False)
    normal_piece: Callable[[str], bytes] = field(repr=False)
    specials: tuple[SpecialToken, ...] = field(repr=False)
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    clean_spaces: bool

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary.tokens)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The texts of the tokens as the file writes them (`▁the`, `Ġthe`, `<0x0A>`)."""
        return self.vocabulary.tokens

    @property
    def bos(self) -> int | None:
        """The token that begins a text."""
        return self.vocabulary.bos

    @property
    def eos(self) -> int | None:
        """The token that ends a text."""
        return self.vocabulary.eos

    @property
    def eog(self) -> frozenset[int]:
        """All tokens that end a generation."""
        return self.vocabulary.eog

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        `add_special`: with BOS and EOS where the model wants them. `parse_special`: the text of a control token, as
        `<|im_end|>`, becomes that token; without it only user-defined tokens are looked for.
        """
        ids: list[int] = []
        if add_special and self.add_bos and self.bos is not None:
            ids.append(self.bos)
        specials = self.specials
        if not parse_special:
            bits = self.vocabulary.attributes
            specials = tuple(special for special in specials if not bits[special.id] & (CONTROL | UNKNOWN))
        after_special = True
        for fragment in split_special(text, specials):
            if isinstance(fragment, int):
                ids.append(fragment)
            else:
                ids += self.merge(" " + fragment if self.add_space_prefix and after_special else fragment)
            after_special = isinstance(fragment, int)
        if add_special and self.add_bos and len(ids) > 1 and ids[1] == self.bos:
            log.warning("the text begins with %r and gets a second one; leave it out", self.tokens[ids[1]])
        if add_special and self.add_eos and self.eos is not None:
            ids.append(self.eos)
        return ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of all ids together; U+FFFD for bytes that are no UTF-8. `special` shows control tokens too."""
        pieces = [self.piece(index, special=special) for index in ids]
        if self.add_space_prefix and pieces:
            pieces[0] = pieces[0].removeprefix(b" ")
        text = b"".join(pieces)
        if self.clean_spaces:
            for pattern, replacement in CLEAN_UP:
                text = re.sub(pattern, replacement, text)
        return text.decode("utf-8", "replace")

    def piece(self, id: int, *, special: bool = False) -> bytes:
        """The bytes of one token, which may be a part of a character; b"" for a control token unless `special`.

        Raises OptionError for an id outside the vocabulary.
        """
        if not 0 <= id < self.size:
            raise OptionError(f"no token has the id {id}; the vocabulary has ids 0 to {self.size - 1}")
        bits, text = self.vocabulary.attributes[id], self.tokens[id]
        if bits & (UNKNOWN | CONTROL) and not special:
            return b""
        if bits & (UNKNOWN | CONTROL | USER_DEFINED):
            return text.encode("utf-8", "surrogateescape")
        if bits & NORMAL:
            return self.normal_piece(text)
        if bits & BYTE:
            return bytes([int(text[3:5], 16)])
        return b""

    def decoder(self, *, special: bool = False) -> StreamDecoder:
        """A decoder for tokens that arrive one by one."""
        return StreamDecoder(partial(self.piece, special=special))


def parsed_special_tokens(vocabulary: Vocabulary, rstrip: Callable[[str], bool]) -> tuple[SpecialToken, ...]:
    """The tokens that are looked for in a text, longest in bytes first; `rstrip` says which eat blanks."""
    tokens = vocabulary.tokens
    found = [
        SpecialToken(tokens[index], index, rstrip(tokens[index]))
        for index in vocabulary.ids_with(CONTROL | USER_DEFINED | UNKNOWN)
    ]
    return tuple(sorted(found, key=lambda special: -len(special.text.encode("utf-8", "surrogateescape"))))
