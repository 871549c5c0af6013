"""The form of a model's thoughts, found by the markers in its chat template.

llama.cpp's names of what to do with them (`--reasoning-format`): `none` leaves them in the text, `deepseek` and `auto`
give them apart (`reasoning_content`), `deepseek-legacy` does both.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from minillama.errors import OptionError, quoted
from minillama.tokenizer.chat.answer_parts import Copied, Marked, Splitter, Uncut
from minillama.tokenizer.chat.harmony_splitter import HarmonySplitter
from minillama.tokenizer.chat.tag_splitter import Tags, TagSplitter

if TYPE_CHECKING:
    from minillama.tokenizer.chat.tool_calls.call_format import CallFormat

REASONING_FORMATS = ("none", "auto", "deepseek", "deepseek-legacy")

# Most thinking models: Qwen, DeepSeek, GLM, Granite, LFM2, MiniMax, Nemotron, SmolLM ...
THINK = Tags("<think>", "</think>")
HARMONY = Tags(
    "<|channel|>analysis<|message|>", "<|end|>", repeats=True, never=("<|start|>",), next="<|start|>assistant",
    answer="<|channel|>final<|message|>",
)  # fmt: skip
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


def answer_splitter(
    source: str, prompt: str, reasoning_format: str = "auto", calls: "CallFormat | None" = None
) -> Splitter:
    """The splitter of an answer, in its initial state.

    source: of the chat template. prompt: rendered by it; it may begin the thoughts. calls: the format of tool calls, if
    the request has tools; they stay in the text. Raises OptionError for an unknown reasoning_format.
    """
    if reasoning_format not in REASONING_FORMATS:
        raise OptionError(f"reasoning_format is {quoted(reasoning_format)}; use one of {', '.join(REASONING_FORMATS)}")
    tags = _tags(source)
    splitter: Splitter = HarmonySplitter()
    if tags is not None:
        splitter = TagSplitter(tags, prompt, calls.ends_thoughts if calls else ())
    if reasoning_format == "none":
        splitter = Uncut(splitter.markers)
    elif reasoning_format == "deepseek-legacy":
        splitter = Copied(splitter)
    return Marked(splitter, (*splitter.markers, *calls.markers)) if calls else splitter


def end_thoughts(source: str, prompt: str) -> str:
    """End the thoughts that a prompt begins, as llama.cpp does where thinking is off."""
    tags = _tags(source)
    return prompt + tags.end if tags and prompt.rstrip().endswith(tags.start) else prompt


def thought_tags(source: str) -> Tags | None:
    """The tags around thoughts; None for a template that names none."""
    tags = _tags(source) or HARMONY
    return tags if tags is not THINK or THINK.start in source or THINK.end in source else None


def _tags(source: str) -> Tags | None:
    return next((tags for text, tags in FORMS.items() if text in source), THINK)
