"""Small vocabularies for tokenizer tests, as metadata of a GGUF file."""

from collections.abc import Sequence

import numpy as np

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def spm_metadata(pieces: dict[str, float], special: Sequence[tuple[str, int]] = ()) -> dict[str, object]:
    """A SentencePiece vocabulary: unknown, BOS, EOS, 256 bytes, scored pieces, special tokens."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(pieces), *(kind for _, kind in special)]
    scores = [0.0] * 259 + list(pieces.values()) + [0.0] * len(special)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": (*tokens, *(text for text, _ in special)),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def bpe_metadata(
    merges: Sequence[str], special: Sequence[tuple[str, int]] = (), pre: str = "gpt-2", without: Sequence[str] = ()
) -> dict[str, object]:
    """A byte-pair vocabulary: the alphabet, the results of the merges (except `without`), special tokens."""
    texts = dict.fromkeys([*byte_alphabet(), *(merge.replace(" ", "") for merge in merges)])
    tokens = [text for text in texts if text not in without]
    types = [NORMAL] * len(tokens) + [kind for _, kind in special]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": (*tokens, *(text for text, _ in special)),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": tuple(merges),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


def character_metadata(merges: Sequence[str], special: Sequence[tuple[str, int]] = ()) -> dict[str, object]:
    """A vocabulary as Gemma 4 has it: special tokens, 256 bytes, the texts of the merges."""
    texts = dict.fromkeys(
        [*(text for merge in merges for text in merge.split(" ", 1)), *(m.replace(" ", "") for m in merges)]
    )
    begin = [("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), *special]
    types = [*(kind for _, kind in begin), *[BYTE] * 256, *[NORMAL] * len(texts)]
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": (*(text for text, _ in begin), *(f"<0x{byte:02X}>" for byte in range(256)), *texts),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": tuple(merges),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
    }


WORDS = {
    "▁": -100.0, "t": -101.0, "h": -102.0, "e": -103.0, "c": -104.0, "a": -105.0, "s": -106.0, ".": -107.0,
    "▁t": -1.0, "he": -2.0, "▁the": -3.0, "▁c": -4.0, "at": -5.0, "▁cat": -6.0, "▁▁": -7.0, "as": -8.0, "ca": -9.0,
}  # fmt: skip
MERGES = ("h e", "Ġ t", "Ġt he", "a t", "Ġ c", "Ġc at", "a s", "Ġ Ġ", "ä ½", "ä½ ł")
