"""Special tokens by their texts: end of generation, end of turn, fill-in-the-middle.

GGUF files name few special tokens. llama.cpp finds the others by their texts (src/llama-vocab.cpp), and models rely on
this: if `<|im_end|>` is not an end token, the answers of a chat never stop. These texts also override token types.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("minillama")

# A token with one of these texts ends the generation in every model.
END_TEXTS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip
# Texts of a role whose id the file does not name; the first one in the vocabulary counts.
ROLE_TEXTS = {
    "eot": (
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>",
        "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
    ),
    "eom": ("<|eom_id|>",),
    "fim_pre": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
        "<|prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
        "<|suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
        "<|middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}  # fmt: skip
END_ROLES = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
# Marks inside a gpt-oss message, which are always shown.
SHOWN_TEXTS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


@dataclass(frozen=True)
class SpecialIds:
    """Ids that end a generation (eog), and ids whose text overrides their type."""

    eog: frozenset[int]
    control: frozenset[int]
    user_defined: frozenset[int]
    normal: frozenset[int]


def find_special_ids(ids: Mapping[str, int], roles: Mapping[str, int | None]) -> SpecialIds:
    """Find special tokens by text.

    roles: the ids that the file names, under `eos` and the keys of ROLE_TEXTS.
    """
    eog = {ids[text] for text in END_TEXTS if text in ids}
    control = set(eog)
    if (eos := roles.get("eos")) is not None:
        eog.add(eos)
    for role, texts in ROLE_TEXTS.items():
        index = roles.get(role)
        if index is None:
            index = next((ids[text] for text in texts if text in ids), None)
            if index is not None:
                control.add(index)
        if index is not None and role in END_ROLES:
            eog.add(index)
    user_defined = {ids[text] for text in SHOWN_TEXTS if text in ids}
    normal: set[int] = set()

    def ends(text: str) -> bool:
        return text in ids and ids[text] in eog

    # In gpt-oss and Solar Open, <|end|> ends a part of an answer, not the answer.
    calls = ends("<|call|>") or ends("<|calls|>")
    if ends("<|end|>") and calls and (ends("<|return|>") or ends("<|flush|>")):
        eog.remove(ids["<|end|>"])
        user_defined.add(ids["<|end|>"])
    # In Gemma 4 and PLaMo, </s> is an HTML tag.
    if ends("</s>") and (ends("<|tool_response>") or ends("<|plamo:eos|>")):
        eog.remove(ids["</s>"])
        normal.add(ids["</s>"])
    return SpecialIds(frozenset(eog), frozenset(control), frozenset(user_defined), frozenset(normal))
