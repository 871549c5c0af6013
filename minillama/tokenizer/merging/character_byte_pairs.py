"""Byte-pair encoding of characters (Gemma 4, Sarvam): GPT-2's merges, SentencePiece's spaces and bytes.

The text is cut at line ends only. The characters of a line are merged; one without a token becomes the tokens of its
UTF-8 bytes, such as `<0xE4>`.
"""

from collections.abc import Callable, Mapping, Sequence

from tokenizers import pre_tokenizers

from minillama.tokenizer.merging.byte_pairs import SURROGATE, splitters
from minillama.tokenizer.merging.character_merge import SPACE, CharacterMerger, pairs_around_spaces
from minillama.tokenizer.merging.merge_pairs import merge_ranks
from minillama.tokenizer.pretokenizers import PreTokenizer


def character_pair_merger(
    ids: Mapping[str, int], merges: Sequence[str], pretokenizer: PreTokenizer
) -> Callable[[str], list[int]]:
    """Build a function from text to token ids.

    merges: lines of two texts, separated by a space.
    """
    ranks = merge_ranks(merges)
    byte_ids = [ids.get(f"<0x{byte:02X}>") for byte in range(256)]
    joined = pairs_around_spaces(merges)
    merger = CharacterMerger(ids, lambda left, right: ranks.get(f"{left} {right}"), byte_ids, joined)
    cut = pre_tokenizers.Sequence(splitters(pretokenizer))

    def merge(text: str) -> list[int]:
        text = SURROGATE.sub("\ufffd", text)
        found: list[int] = []
        for piece, _ in cut.pre_tokenize_str(text.replace(" ", SPACE) if pretokenizer.mark_spaces else text):
            is_whole = pretokenizer.ignore_merges or (pretokenizer.whole_newlines and not piece.strip("\n"))
            whole = ids.get(piece) if is_whole else None
            found += merger(piece) if whole is None else [whole]
        return found

    return merge
