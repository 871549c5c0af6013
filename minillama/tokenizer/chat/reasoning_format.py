"""The form of a model's thoughts, found by the markers in its chat template.

llama.cpp's names of what to do with them (`--reasoning-format`): `none` leaves them in the text, `deepseek` and `auto`
give them apart (`reasoning_content`), `deepseek-legacy` does both.
"""

from collections.abc import Mapping
from types import MappingProxyType

from minillama.errors import OptionError, quoted
from minillama.tokenizer.chat.answer_parts import Copied, Splitter, Uncut
from minillama.tokenizer.chat.harmony_splitter import HarmonySplitter
from minillama.tokenizer.chat.tag_splitter import Tags, TagSplitter

REASONING_FORMATS = ("none", "auto", "deepseek", "deepseek-legacy")

# Most thinking models: Qwen, DeepSeek, GLM, Granite, LFM2, MiniMax, Nemotron, SmolLM ...
THINK = Tags("<think>", "</think>")
# A text in the template, and the form of the answers if it is not THINK; None is harmony.
FORMS: Mapping[str, Tags | None] = MappingProxyType(
    {
        "<|channel|>": None,  # gpt-oss
        "<|return|>": None,
        "<|channel>": Tags("<|channel>thought", "<channel|>", repeats=True),  # Gemma 4
        "<|START_THINKING|>": Tags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command R7B and A
        "<seed:think>": Tags("<seed:think>", "</seed:think>"),
        "<mm:think>": Tags("<mm:think>", "</mm:think>"),  # MiniMax M3
        "[SYSTEM_PROMPT]": Tags("[THINK]", "[/THINK]"),  # Ministral, Magistral
        "Here are my reasoning steps:": Tags("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
    }
)


def answer_splitter(source: str, prompt: str, reasoning_format: str = "auto") -> Splitter:
    """The splitter of an answer, in its initial state.

    source: of the chat template. prompt: rendered by it; it may begin the thoughts. Raises OptionError for an unknown
    reasoning_format.
    """
    if reasoning_format not in REASONING_FORMATS:
        raise OptionError(f"reasoning_format is {quoted(reasoning_format)}; use one of {', '.join(REASONING_FORMATS)}")
    splitter = _splitter(source, prompt)
    if reasoning_format == "none":
        return Uncut(splitter.markers)
    return Copied(splitter) if reasoning_format == "deepseek-legacy" else splitter


def _splitter(source: str, prompt: str) -> Splitter:
    tags = next((tags for text, tags in FORMS.items() if text in source), THINK)
    return HarmonySplitter() if tags is None else TagSplitter(tags, prompt)
