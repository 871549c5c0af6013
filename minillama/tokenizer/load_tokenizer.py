"""Build a tokenizer from the metadata of a GGUF file."""

import logging
import re
from collections.abc import Callable, Mapping

import numpy as np

from minillama.errors import FormatError, UnsupportedError, quoted
from minillama.tokenizer.merging.byte_pairs import alphabet_to_bytes, byte_pair_merger
from minillama.tokenizer.merging.character_byte_pairs import character_pair_merger
from minillama.tokenizer.merging.character_merge import SPACE
from minillama.tokenizer.merging.score_merge import byte_fallback_ids, score_merger
from minillama.tokenizer.pretokenizers import PRETOKENIZERS, PreTokenizer, find_pretokenizer
from minillama.tokenizer.tokenize import Tokenizer, parsed_special_tokens
from minillama.tokenizer.vocabulary import BYTE, Vocabulary, read_flag, read_numbers, read_texts, read_vocabulary

log = logging.getLogger("minillama")

BYTE_TOKEN = re.compile("<0x[0-9A-Fa-f]{2}>")


def load_tokenizer(metadata: Mapping[str, object]) -> Tokenizer:
    """Build the tokenizer of a file from its metadata (`GGUF.metadata`).

    Raises UnsupportedError for an unknown type of tokenizer, FormatError for malformed metadata.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model is None:
        raise FormatError("the file has no tokenizer (tokenizer.ggml.model is missing); convert the model again")
    if not isinstance(model, str) or model not in LOADERS:
        raise UnsupportedError(
            f"unknown tokenizer {quoted(model)} (tokenizer.ggml.model); supported: {', '.join(LOADERS)}"
        )
    return LOADERS[model](metadata)


def _load_spm(metadata: Mapping[str, object]) -> Tokenizer:
    vocabulary = _check_byte_tokens(read_vocabulary(metadata, bos=1, eos=2, unknown=0))
    scores = read_numbers(metadata, "tokenizer.ggml.scores", len(vocabulary.tokens))
    if scores is None:
        log.warning("the file has no tokenizer.ggml.scores; all merges get the same score, which lowers answer quality")
        scores = np.zeros(len(vocabulary.tokens))
    space_prefix = read_flag(metadata, "tokenizer.ggml.add_space_prefix", True)
    byte_ids = byte_fallback_ids(vocabulary.ids, vocabulary.unknown)
    return Tokenizer(
        vocabulary,
        merge=score_merger(vocabulary.ids, scores.tolist(), byte_ids),
        normal_piece=_sentencepiece_bytes,
        specials=parsed_special_tokens(vocabulary, _rstrip_rule(metadata)),
        add_bos=read_flag(metadata, "tokenizer.ggml.add_bos_token", True),
        add_eos=read_flag(metadata, "tokenizer.ggml.add_eos_token", False),
        add_space_prefix=space_prefix,
        drop_space_prefix=space_prefix,
        clean_spaces=False,
    )


def _load_bpe(metadata: Mapping[str, object]) -> Tokenizer:
    pretokenizer = find_pretokenizer(metadata)
    return _byte_pair_tokenizer(metadata, pretokenizer, bos=11 if pretokenizer.has_bos else None, eos=11)


def _load_gemma4(metadata: Mapping[str, object]) -> Tokenizer:
    return _byte_pair_tokenizer(metadata, PRETOKENIZERS["gemma4"], bos=None, eos=None)


def _byte_pair_tokenizer(
    metadata: Mapping[str, object], pretokenizer: PreTokenizer, bos: int | None, eos: int | None
) -> Tokenizer:
    """bos, eos: ids if the file does not name them."""
    vocabulary = _check_byte_tokens(read_vocabulary(metadata, bos=bos, eos=eos, unknown=None))
    merger = character_pair_merger if pretokenizer.characters else byte_pair_merger
    add_bos = read_flag(metadata, "tokenizer.ggml.add_bos_token", pretokenizer.add_bos)
    return Tokenizer(
        vocabulary,
        merge=merger(vocabulary.ids, read_texts(metadata, "tokenizer.ggml.merges"), pretokenizer),
        normal_piece=_sentencepiece_bytes if pretokenizer.mark_spaces else alphabet_to_bytes,
        specials=parsed_special_tokens(vocabulary, _rstrip_rule(metadata)),
        add_bos=add_bos or pretokenizer.forces_bos,
        add_eos=read_flag(metadata, "tokenizer.ggml.add_eos_token", False),
        add_space_prefix=False,  # in llama.cpp, too, only decoding uses the flag
        drop_space_prefix=read_flag(metadata, "tokenizer.ggml.add_space_prefix", False),
        clean_spaces=pretokenizer.clean_spaces,
    )


LOADERS: Mapping[str, Callable[[Mapping[str, object]], Tokenizer]] = {
    "llama": _load_spm,
    "gpt2": _load_bpe,
    "gemma4": _load_gemma4,
}


def _check_byte_tokens(vocabulary: Vocabulary) -> Vocabulary:
    """Return the vocabulary; raises FormatError if a byte token does not name its byte."""
    for index in vocabulary.ids_with(BYTE):
        if not BYTE_TOKEN.fullmatch(vocabulary.tokens[index]):
            raise FormatError(
                f"tokenizer.ggml.tokens has {quoted(vocabulary.tokens[index])} for a byte; expected a text like <0x0A>"
            )
    return vocabulary


def _rstrip_rule(metadata: Mapping[str, object]) -> Callable[[str], bool]:
    """Predicate: does a special token strip the blanks after it?

    True for nearly all special tokens of Phi-3. GGUF has no metadata for this, so the model's name decides.
    """
    name = str(metadata.get("general.name", "")).lower()
    if "phi-3" in name or "phi3" in name:
        return lambda text: text not in ("<unk>", "<s>", "<|endoftext|>")
    return lambda text: False


def _sentencepiece_bytes(text: str) -> bytes:
    return text.replace(SPACE, " ").encode("utf-8", "surrogateescape")
