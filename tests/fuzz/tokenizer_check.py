"""Check a loaded tokenizer: ids inside the vocabulary, and texts that come back."""

import re
from collections.abc import Mapping, Sequence

from minillama.gguf.byte_alphabet import CHARACTER_TO_BYTE
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.merging.character_merge import SPACE
from minillama.tokenizer.pretokenizers import find_pretokenizer
from minillama.tokenizer.vocabulary import BYTE, NORMAL
from tests.fuzz.case_kind import Finding

LOST = re.compile("[\ud800-\udfff▁]")  # not UTF-8; SentencePiece's space
TEXTS = (
    "",
    "Hello world, it's 12345 at\n\nnoon!",
    "日本語 👩‍👩‍👧 é\u0301 \u202e",
    "\0\x1b\t  x",
    "\udcff<s></s><|im_end|>",
)


def check_tokenizer(tokenizer: Tokenizer, metadata: Mapping[str, object], texts: Sequence[str] = TEXTS) -> None:
    """Encode and decode some texts; Finding for wrong results."""
    complete = _is_complete(tokenizer, metadata)
    for text in texts:
        ids = tokenizer.encode(text)
        if any(type(index) is not int or not 0 <= index < tokenizer.size for index in ids):
            raise Finding(f"{text!r} becomes {ids[:20]}, outside the vocabulary of {tokenizer.size}")
        plain = tokenizer.encode(text, add_special=False, parse_special=False)
        whole = b"".join(tokenizer.piece(index) for index in plain)
        decoder = tokenizer.decoder()
        streamed = "".join([*map(decoder.push, plain), decoder.flush()])
        if streamed != whole.decode("utf-8", "replace"):
            raise Finding(f"{text!r} is {streamed!r} in a stream, but {whole!r} at once")
        is_shown = all(tokenizer.vocabulary.attributes[index] in (NORMAL, BYTE) for index in plain)
        if complete and is_shown and not tokenizer.clean_spaces and not LOST.search(text):
            back = tokenizer.decode(plain)
            if tokenizer.drop_space_prefix and not tokenizer.add_space_prefix:
                text = text.removeprefix(" ")
            if back != text:
                raise Finding(f"{text!r} comes back as {back!r}")
    for index in (*range(min(8, tokenizer.size)), tokenizer.size - 1):
        tokenizer.piece(index, special=True)


def _is_complete(tokenizer: Tokenizer, metadata: Mapping[str, object]) -> bool:
    """True if every byte has a token that is shown, so that no text loses anything."""
    vocabulary = tokenizer.vocabulary
    needed: dict[str, int] = {SPACE: NORMAL} | {f"<0x{byte:02X}>": BYTE for byte in range(256)}
    if metadata["tokenizer.ggml.model"] != "llama":  # in which a space is never one of the bytes
        merges = [line.replace(" ", "", 1) for line in metadata["tokenizer.ggml.merges"]]
        if not find_pretokenizer(metadata).characters:
            needed = dict.fromkeys(CHARACTER_TO_BYTE, NORMAL)
        needed |= dict.fromkeys(merges, NORMAL)
    found = ((vocabulary.ids.get(text, -1), kind) for text, kind in needed.items())
    return all(index >= 0 and vocabulary.attributes[index] == kind for index, kind in found)
