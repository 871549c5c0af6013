"""The tokenizer: text to token ids and back, with the ids of llama.cpp (src/llama-vocab.cpp)."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial

from minillama.errors import OptionError
from minillama.tokenizer.split_special_tokens import BLANKS, SpecialToken, split_special
from minillama.tokenizer.streaming_decoder import StreamDecoder
from minillama.tokenizer.token_ids import checked_id, checked_ids
from minillama.tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

log = logging.getLogger("minillama")

# Clean-up of a complete text: spaces before punctuation, around a single apostrophe, before a contraction.
CLEAN_UP = ((rb" (?=[?!.,])", b""), (rb" ' ", b"'"), (rb" (?='(?:[sm]|re|ve))", b""))


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back; built by `load_tokenizer`.

    merge: a text without special tokens -> ids. normal_piece: the text of a normal token -> its bytes.
    add_space_prefix: put a space before the text, and before each text after a special token.
    drop_space_prefix: decoding removes a space at the start.
    """

    vocabulary: Vocabulary
    merge: Callable[[str], list[int]] = field(repr=False)
    normal_piece: Callable[[str], bytes] = field(repr=False)
    specials: tuple[SpecialToken, ...] = field(repr=False)
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    drop_space_prefix: bool
    clean_spaces: bool

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.vocabulary.tokens)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Texts of the tokens as in the file (`▁the`, `Ġthe`, `<0x0A>`)."""
        return self.vocabulary.tokens

    @property
    def bos(self) -> int | None:
        """Token that begins a text."""
        return self.vocabulary.bos

    @property
    def eos(self) -> int | None:
        """Token that ends a text."""
        return self.vocabulary.eos

    @property
    def eog(self) -> frozenset[int]:
        """All tokens that end a generation."""
        return self.vocabulary.eog

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        add_special: add BOS and EOS if the model uses them. parse_special: the text of a control token, such as
        `<|im_end|>`, becomes that token; otherwise only user-defined tokens are parsed.
        Raises OptionError for anything but a str.
        """
        if not isinstance(text, str):
            fix = "decode it first, with .decode('utf-8')" if isinstance(text, bytes | bytearray) else "expected a str"
            raise OptionError(f"the text is of type {type(text).__name__}; {fix}")
        ids: list[int] = []
        if add_special and self.add_bos and self.bos is not None:
            ids.append(self.bos)
        specials = self.specials
        if not parse_special:
            attributes = self.vocabulary.attributes
            specials = tuple(special for special in specials if not attributes[special.id] & (CONTROL | UNKNOWN))
        after_special = True
        for part in split_special(text, specials):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self.merge(" " + part if self.add_space_prefix and after_special else part)
            after_special = isinstance(part, int)
        if add_special and self.add_bos and len(ids) > 1 and ids[1] == self.bos:
            log.warning("the text begins with %r and gets a second one; remove it from the text", self.tokens[ids[1]])
        if add_special and self.add_eos and self.eos is not None:
            ids.append(self.eos)
        return ids

    def fewest_tokens(self, text: str) -> int:
        """A lower bound of the tokens of a text, found without encoding it.

        No token is longer than the longest of the vocabulary. Blanks do not count: some special tokens remove them.
        """
        blanks = sum(map(text.count, BLANKS))
        return (len(text) - blanks) // self._longest

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self.tokens), default=1) or 1

    def encode_rendered(self, text: str) -> list[int]:
        """Token ids of a rendered conversation, with one BOS only: templates often write it too."""
        if self.add_bos and self.bos is not None:
            text = text.removeprefix(self.tokens[self.bos])
        return self.encode(text)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of all ids; U+FFFD for bytes that are not UTF-8.

        special: also show control tokens. Raises OptionError for values that are not ids of the vocabulary.
        """
        pieces = [self.piece(index, special=special) for index in checked_ids(ids, self.size)]
        if self.drop_space_prefix and pieces:
            pieces[0] = pieces[0].removeprefix(b" ")
        text = b"".join(pieces)
        if self.clean_spaces:
            for pattern, replacement in CLEAN_UP:
                text = re.sub(pattern, replacement, text)
        return text.decode("utf-8", "replace")

    def piece(self, id: int, *, special: bool = False) -> bytes:
        """The bytes of one token, perhaps a part of a character.

        b"" for a control token without `special`. Raises OptionError for an id outside the vocabulary.
        """
        if type(id) is not int or not 0 <= id < self.size:
            id = checked_id(id, self.size)
        attributes, text = self.vocabulary.attributes[id], self.tokens[id]
        if attributes & (UNKNOWN | CONTROL) and not special:
            return b""
        if attributes & (UNKNOWN | CONTROL | USER_DEFINED):
            return text.encode("utf-8", "surrogateescape")
        if attributes & NORMAL:
            return self.normal_piece(text)
        if attributes & BYTE:
            return bytes([int(text[3:5], 16)])
        return b""

    def control_tokens_in(self, texts: Iterable[str]) -> frozenset[int]:
        """Control tokens whose text is a part of one of the texts; `piece` hides them."""
        texts, tokens = tuple(texts), self.tokens
        hidden = self.vocabulary.ids_with(UNKNOWN | CONTROL) if texts else ()
        return frozenset(index for index in hidden if any(tokens[index] in text for text in texts))

    def decoder(self, *, special: bool = False) -> StreamDecoder:
        """Streaming decoder for tokens that arrive one by one."""
        return StreamDecoder(partial(self.piece, special=special))


def parsed_special_tokens(vocabulary: Vocabulary, rstrip: Callable[[str], bool]) -> tuple[SpecialToken, ...]:
    """Special tokens to find in a text, longest in bytes first.

    rstrip: predicate for the tokens that remove the blanks after them.
    """
    tokens = vocabulary.tokens
    found = [
        SpecialToken(tokens[index], index, rstrip(tokens[index]))
        for index in vocabulary.ids_with(CONTROL | USER_DEFINED | UNKNOWN)
    ]
    return tuple(sorted(found, key=lambda special: -len(special.text.encode("utf-8", "surrogateescape"))))
