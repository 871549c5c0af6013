"""Specifications of the vocabularies of real models: sizes, special tokens, chat templates."""

from dataclasses import dataclass

from minillama.random_models.vocabularies.chat_templates import CHATML_QWEN, CHATML_QWEN_35, GLM_47, HARMONY, LLAMA_3


@dataclass(frozen=True)
class VocabularySpec:
    """Specification of a synthetic vocabulary.

    pre: pre-tokenizer of a byte-level BPE vocabulary, `gemma4` for its BPE of characters; None for SentencePiece.
    special: (id, text, type) with llama.cpp's token types: 3 control, 4 user-defined, 5 unused.
    """

    size: int
    pre: str | None
    special: tuple[tuple[int, str, int], ...]
    bos: int | None
    eos: int
    padding: int | None
    add_bos: bool
    chat_template: str | None

    @property
    def model(self) -> str:
        """The kind of tokenizer, as GGUF names it."""
        return {None: "llama", "gemma4": "gemma4"}.get(self.pre, "gpt2")


def sentencepiece(size: int, chat_template: str) -> VocabularySpec:
    """Llama 1 and 2, TinyLlama."""
    special = ((0, "<unk>", 2), (1, "<s>", 3), (2, "</s>", 3))
    return VocabularySpec(size, None, special, 1, 2, None, True, chat_template)


def llama_3() -> VocabularySpec:
    """Llama 3."""
    named = {
        0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>", 6: "<|start_header_id|>",
        7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>", 10: "<|python_tag|>",
    }  # fmt: skip
    reserved = (f"<|reserved_special_token_{number}|>" for number in range(256))
    special = tuple((128000 + place, named.get(place) or next(reserved), 3) for place in range(256))
    return VocabularySpec(128256, "llama-bpe", special, 128000, 128009, 128004, True, LLAMA_3)


def qwen_2() -> VocabularySpec:
    """Qwen 2 and 2.5."""
    return _qwen(151643, 151936, _QWEN_DEFINED, "qwen2", CHATML_QWEN)


def qwen_35() -> VocabularySpec:
    """Qwen 3.5."""
    return _qwen(248044, 248320, _QWEN_DEFINED + _QWEN_35_DEFINED, "qwen35", CHATML_QWEN_35)


def glm_47() -> VocabularySpec:
    """GLM-4.7-Flash."""
    first, size = 154820, 154880
    texts = [(text, 3) for text in _GLM_CONTROL] + [(text, 4) for text in _GLM_DEFINED]
    texts += [(f"[PAD{number}]", 5) for number in range(first + len(texts), size)]
    special = tuple((first + place, text, kind) for place, (text, kind) in enumerate(texts))
    return VocabularySpec(size, "glm4", special, first + 2, first, first, False, GLM_47)


def gpt_oss() -> VocabularySpec:
    """The o200k_harmony vocabulary of gpt-oss."""
    first, size = 199998, 201088
    named = {place: f"<|{name}|>" for place, name in _HARMONY.items()}
    special = tuple((place, named.get(place, f"<|reserved_{place}|>"), 3) for place in range(first, size))
    return VocabularySpec(size, "gpt-4o", special, first, 200002, first + 1, False, HARMONY)


def _qwen(first: int, size: int, defined: tuple[str, ...], pre: str, template: str) -> VocabularySpec:
    """Special tokens from number `first` on, then unused ones."""
    texts = [(text, 3) for text in _QWEN_CONTROL] + [(text, 4) for text in defined]
    texts += [(f"[PAD{number}]", 5) for number in range(first + len(texts), size)]
    special = tuple((first + place, text, kind) for place, (text, kind) in enumerate(texts))
    return VocabularySpec(size, pre, special, first, first + 2, first, False, template)


_QWEN_CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_QWEN_DEFINED = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
_QWEN_35_DEFINED = (
    "<tool_response>", "</tool_response>", "<think>", "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>",
    "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>",
)  # fmt: skip
_HARMONY = {
    199998: "startoftext", 199999: "endoftext", 200002: "return", 200003: "constrain", 200005: "channel",
    200006: "start", 200007: "end", 200008: "message", 200012: "call", 200018: "endofprompt",
}  # fmt: skip
_GLM_CONTROL = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>",
)  # fmt: skip
_GLM_DEFINED = (
    "/nothink", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
)  # fmt: skip
