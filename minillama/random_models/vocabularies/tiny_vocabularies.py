"""Small vocabularies of the families' tokenizers: special tokens and chat templates."""

from collections.abc import Mapping

from gguf.constants import TokenType

from minillama.random_models.vocabularies.chat_templates import (
    CHATML_QWEN,
    CHATML_QWEN_35,
    ERNIE,
    GLM_47,
    HARMONY,
    HUNYUAN,
    NEMOTRON,
    turns,
)
from minillama.random_models.vocabularies.vocabulary_specs import VocabularySpec
from minillama.tokenizer.chat.chat_formats import BUILTIN_TEMPLATES

SIZE = 512  # tokens that are not special in a vocabulary of byte pairs, all tokens in others


def tiny_vocabulary(architecture: str) -> VocabularySpec:
    """The small vocabulary of an architecture; KeyError for an unknown one."""
    return TINY[_LIKE.get(architecture, architecture)]


def _pairs(
    pre: str, special: str, template: str | None, eos: str, bos: str | None = None, *, add_bos: bool = False
) -> VocabularySpec:
    """Byte pairs, with the special tokens at the end.

    special: texts with a space between them. eos, bos: two of them.
    """
    texts = special.split()
    placed = tuple((SIZE + place, text, TokenType.CONTROL) for place, text in enumerate(texts))
    ids = {text: place for place, text, _ in placed}
    begin = None if bos is None else ids[bos]
    return VocabularySpec(SIZE + len(texts), pre, placed, begin, ids[eos], None, add_bos, template)


def _pieces(
    special: str, template: str | None, eos: str = "</s>", bos: str = "<s>", pre: str | None = None
) -> VocabularySpec:
    """SentencePiece, or Gemma 4's pairs of characters, with the special tokens at the front."""
    texts = special.split()
    placed = tuple(
        (place, text, TokenType.UNKNOWN if text == "<unk>" else TokenType.CONTROL) for place, text in enumerate(texts)
    )
    return VocabularySpec(SIZE, pre, placed, texts.index(bos), texts.index(eos), None, True, template)


_CHATML, _LLAMA = "<|endoftext|> <|im_start|> <|im_end|>", "<unk> <s> </s>"
_GEMMA = "<pad> <eos> <bos> <unk>"
_GLM = "<|endoftext|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>"
_GRANITE = "<|end_of_text|> <|start_of_role|> <|end_of_role|>"
TINY: Mapping[str, VocabularySpec] = {
    "llama": _pairs(
        "llama-bpe", "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|>",
        BUILTIN_TEMPLATES["llama3"], "<|eot_id|>", "<|begin_of_text|>", add_bos=True,
    ),
    "mistral3": _pairs(
        "tekken", "<unk> <s> </s> [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT]",
        BUILTIN_TEMPLATES["mistral-v7-tekken"], "</s>", "<s>", add_bos=True,
    ),
    "smollm3": _pairs("smaug-bpe", _CHATML, BUILTIN_TEMPLATES["chatml"], "<|im_end|>"),
    "qwen2": _pairs("qwen2", _CHATML, CHATML_QWEN, "<|im_end|>", "<|endoftext|>"),
    "qwen3": _pairs("qwen2", f"{_CHATML} <think> </think>", BUILTIN_TEMPLATES["chatml"], "<|im_end|>", "<|endoftext|>"),
    "qwen35": _pairs("qwen35", f"{_CHATML} <think> </think>", CHATML_QWEN_35, "<|im_end|>", "<|endoftext|>"),
    "chatglm": _pairs("chatglm-bpe", _GLM, BUILTIN_TEMPLATES["chatglm4"], "<|endoftext|>"),
    "glm4": _pairs("glm4", _GLM, BUILTIN_TEMPLATES["chatglm4"], "<|endoftext|>"),
    "glm4moe": _pairs("glm4", f"{_GLM} <think> </think>", GLM_47, "<|endoftext|>"),
    "gemma": _pieces(f"{_GEMMA} <start_of_turn> <end_of_turn>", BUILTIN_TEMPLATES["gemma"], "<eos>", "<bos>"),
    "gemma4": _pieces(
        f"{_GEMMA} <|turn> <turn|>", turns("<|turn>", "\\n", "<turn|>\\n", "model"), "<eos>", "<bos>", "gemma4"
    ),
    "phi2": _pairs("gpt-2", "<|endoftext|>", None, "<|endoftext|>", "<|endoftext|>"),
    "phi3": _pieces(
        f"{_LLAMA} <|endoftext|> <|assistant|> <|system|> <|end|> <|user|>", BUILTIN_TEMPLATES["phi3"], "<|endoftext|>"
    ),
    "granite": _pairs("refact", _GRANITE, BUILTIN_TEMPLATES["granite"], "<|end_of_text|>", "<|end_of_text|>"),
    "granitehybrid": _pairs("dbrx", _GRANITE, BUILTIN_TEMPLATES["granite"], "<|end_of_text|>", "<|end_of_text|>"),
    "nemotron_h": _pairs(
        "pixtral", "<unk> <s> </s> <SPECIAL_10> <SPECIAL_11> <SPECIAL_12> <think> </think>", NEMOTRON, "<SPECIAL_12>",
        "<s>", add_bos=True,
    ),
    "lfm2": _pairs(
        "lfm2", f"<|pad|> <|startoftext|> {_CHATML}", BUILTIN_TEMPLATES["chatml"], "<|im_end|>", "<|startoftext|>",
        add_bos=True,
    ),
    "minicpm": _pieces(_LLAMA, BUILTIN_TEMPLATES["minicpm"]),
    "ernie4_5": _pieces(f"{_LLAMA} <|begin_of_sentence|> <|end_of_sentence|>", ERNIE),
    "olmo2": _pairs("dbrx", "<|endoftext|> <|pad|>", turns("<|", "|>\\n", "\\n"), "<|endoftext|>", "<|endoftext|>"),
    "hunyuan-dense": _pairs(
        "hunyuan-dense", "<｜hy_begin▁of▁sentence｜> <｜hy_User｜> <｜hy_Assistant｜> <｜hy_place▁holder▁no▁2｜>"
        " <｜hy_place▁holder▁no▁3｜>", HUNYUAN, "<｜hy_place▁holder▁no▁2｜>", "<｜hy_begin▁of▁sentence｜>",
    ),
    "seed_oss": _pairs(
        "seed-coder", "<seed:bos> <seed:eos> <seed:pad>", turns("<seed:bos>", "\\n", "<seed:eos>"), "<seed:eos>",
        "<seed:bos>",
    ),
    "exaone4": _pairs(
        "exaone4", "[BOS] [|endofturn|] [|system|] [|user|] [|assistant|]", turns("[|", "|]\\n", "[|endofturn|]\\n"),
        "[|endofturn|]", "[BOS]",
    ),
    "cohere2": _pairs(
        "command-r", "<PAD> <BOS_TOKEN> <EOS_TOKEN> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> "
        "<|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|>", BUILTIN_TEMPLATES["command-r"], "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>",
        add_bos=True,
    ),
    "starcoder2": _pairs("starcoder", "<|endoftext|>", None, "<|endoftext|>", "<|endoftext|>"),
    "gpt-oss": _pairs(
        "gpt-4o", "<|startoftext|> <|endoftext|> <|return|> <|constrain|> <|channel|> <|start|> <|end|> <|message|> "
        "<|call|>", HARMONY, "<|return|>", "<|startoftext|>",
    ),
    "deepseek2": _pairs(
        "deepseek-v3", "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜>",
        BUILTIN_TEMPLATES["deepseek3"], "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", add_bos=True,
    ),
    "minimax-m2": _pairs(
        "minimax-m2", "]~!b[ ]~b] [e~[ <think> </think>", turns("]~b]", "\\n", "[e~[\\n", "ai"), "[e~[", "]~!b[",
    ),
}  # fmt: skip
# Architectures with the tokenizer of another.
_LIKE: Mapping[str, str] = {
    "qwen2moe": "qwen2", "qwen2vl": "qwen2", "qwen3moe": "qwen3", "qwen3vl": "qwen3", "qwen3vlmoe": "qwen3",
    "qwen3next": "qwen3", "qwen35moe": "qwen35", "gemma2": "gemma", "gemma3": "gemma", "granitemoe": "granite",
    "lfm2moe": "lfm2", "ernie4_5-moe": "ernie4_5",
}  # fmt: skip
