"""The form of a model's tool calls, found by texts in its chat template."""

import re

from minillama.tokenizer.chat.tool_calls.call_format import CallFormat, Spelling
from minillama.tokenizer.chat.tool_calls.gemma_calls import QUOTE, GemmaCalls
from minillama.tokenizer.chat.tool_calls.header_calls import HeaderCalls
from minillama.tokenizer.chat.tool_calls.json_calls import JsonCalls
from minillama.tokenizer.chat.tool_calls.python_calls import PythonCalls
from minillama.tokenizer.chat.tool_calls.tagged_calls import TaggedCalls

_NAME = r"(?P<name>[^\s\[\]<>{}\"']+?)"
_BARE = JsonCalls(("<|python_tag|>",), keys=("name", "parameters"))
_HERMES = JsonCalls(("<tool_call>",), ("</tool_call>",))
_HERMES_FORMAT = CallFormat((_HERMES,), Spelling("", "<tool_call>\n", "\n</tool_call>", "\n"))
_QWEN_XML = TaggedCalls(
    ("<tool_call>", "<function="), ("<function=", (">",)), ("<parameter=", ">", ""), "</parameter>", "</function>",
    lines=True, ends=("</tool_call>",),
)  # fmt: skip
_SEED = TaggedCalls(
    ("<seed:tool_call>", "<function="), ("<function=", (">",)), ("<parameter=", ">", ""), "</parameter>", "</function>",
    lines=True, ends=("</seed:tool_call>",),
)  # fmt: skip
_GLM = TaggedCalls(
    ("<tool_call>",), ("<tool_call>", ("\n", "<arg_key>", "</tool_call>")), ("<arg_key>", "</arg_key>", "<arg_value>"),
    "</arg_value>", "</tool_call>",
)  # fmt: skip
_MINIMAX = TaggedCalls(
    ("<minimax:tool_call>", '<invoke name="'), ('<invoke name="', ('">',)), ('<parameter name="', '"', ">"),
    "</parameter>", "</invoke>", ends=("</minimax:tool_call>",),
)  # fmt: skip
_MINICPM = TaggedCalls(
    ('<function name="',), ('<function name="', ('">',)), ('<param name="', '"', ">"), "</param>", "</function>",
    cdata=True,
)  # fmt: skip
_DSML = TaggedCalls(
    ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", '<｜DSML｜invoke name="'), ('<｜DSML｜invoke name="', ('">',)),
    ('<｜DSML｜parameter name="', '"', ">"), "</｜DSML｜parameter>", "</｜DSML｜invoke>",
    ends=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"), states_text=True,
)  # fmt: skip
_DEEPSEEK = HeaderCalls(
    ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    re.compile(rf"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}(?:<｜tool▁sep｜>|\s|$)"),
    ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    after_names=("<｜tool▁sep｜>",),
)
_DEEPSEEK_R1 = HeaderCalls(_DEEPSEEK.starts, _DEEPSEEK.header, _DEEPSEEK.ends, after_names=("\n```json\n",))
_KIMI = HeaderCalls(
    ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
    re.compile(rf"<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?{_NAME}(?::\d+)?)\s*<\|tool_call_argument_begin\|>"),
    ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
    after_names=(":",), id_gbnf="[0-9]{1,3}", before_arguments="<|tool_call_argument_begin|>",
)  # fmt: skip
_MISTRAL = HeaderCalls(
    ("[TOOL_CALLS]",), re.compile(rf"\[TOOL_CALLS\]\s*{_NAME}\s*(?:\[CALL_ID\](?P<id>[^\[\s]*))?\s*(?:\[ARGS\]|$)"),
    after_names=("[ARGS]",),
)  # fmt: skip
_MISTRAL_IDS = HeaderCalls(
    _MISTRAL.starts, _MISTRAL.header, after_names=("[CALL_ID]",), id_gbnf="[a-zA-Z0-9]{9}", before_arguments="[ARGS]"
)
_MISTRAL_ARRAY = JsonCalls(("[TOOL_CALLS]",), is_array=True, id_gbnf="[a-zA-Z0-9]{9}")
_HARMONY = HeaderCalls(
    ("<|channel|>", " to=functions.", "to=functions."),
    re.compile(r"to=functions\.(?P<name>[^\s<>{}]+)"),
    separator="<|message|>",
    after_names=(
        " <|constrain|>json<|message|>", "<|channel|>commentary <|constrain|>json<|message|>",
        "<|channel|>commentary json<|message|>", "<|message|>",
    ),
)  # fmt: skip
_FUNCTIONARY = HeaderCalls(
    ("<function=",), re.compile(rf"<function={_NAME}>\s*$"), ("</function>",), after_names=(">",)
)  # fmt: skip
_COMMAND = JsonCalls(
    ("<|START_ACTION|>",), ("<|END_ACTION|>",), is_array=True, keys=("tool_name", "parameters"), id_key="tool_call_id",
    id_gbnf="[0-9]{1,3}", is_id_first=True,
)  # fmt: skip
_GRANITE = JsonCalls(("<|tool_call|>", "<tool_call>"), ("</tool_call>", "<|/tool_call|>"), is_array=True)
_NEMOTRON = JsonCalls(("<TOOLCALL>",), ("</TOOLCALL>",), is_array=True)
_APRIEL = JsonCalls(("<tool_calls>", "<tool_call>"), ("</tool_calls>", "</tool_call>"), is_array=True)
_LFM2 = PythonCalls(("<|tool_call_start|>",), ("<|tool_call_end|>",))
_OLMO = PythonCalls(("<function_calls>",), ("</function_calls>",), is_list=False)
GENERIC = CallFormat((_BARE, _HERMES), bare=True, is_single=True)

# Texts that are all in the template, and the format; the first row that fits.
FORMATS: tuple[tuple[tuple[str, ...], CallFormat], ...] = (
    (("<|channel|>",), CallFormat(
        (_HARMONY,), Spelling("<|channel|>commentary ", "to=functions."), is_single=True,
        trigger=r"<\|start\|>assistant(?:<\|channel\|>(?:commentary|analysis))? ?(to=functions\.)",
        prompt_end="<|start|>assistant",
    )),
    (("<|tool_call>",), CallFormat(
        (GemmaCalls(),), Spelling("", "<|tool_call>", "<tool_call|>"), inside=(QUOTE,),
    )),
    (("｜DSML｜", "tool_calls>"), CallFormat(
        (_DSML,), Spelling("<｜DSML｜tool_calls>\n", "", "", "\n", "\n</｜DSML｜tool_calls>"),
        ends_thoughts=_DSML.starts[:2],
    )),
    (("｜DSML｜",), CallFormat(
        (_DSML,), Spelling("<｜DSML｜function_calls>\n", "", "", "\n", "\n</｜DSML｜function_calls>"),
        ends_thoughts=_DSML.starts[:2],
    )),
    (("<｜tool▁call▁begin｜>", "```json"), CallFormat((_DEEPSEEK_R1,), Spelling(
        "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```<｜tool▁call▁end｜>", "\n",
        "<｜tool▁calls▁end｜>",
    ))),
    (("<｜tool▁call▁begin｜>",), CallFormat((_DEEPSEEK,), Spelling(
        "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "", "<｜tool▁calls▁end｜>",
    ))),
    (("<|tool_call_begin|>",), CallFormat((_KIMI,), Spelling(
        "<|tool_calls_section_begin|>", "<|tool_call_begin|>functions.", "<|tool_call_end|>", "",
        "<|tool_calls_section_end|>",
    ))),
    (("<seed:tool_call>",), CallFormat((_SEED,), Spelling("<seed:tool_call>\n", "", "", "\n", "\n</seed:tool_call>"))),
    (("<minimax:tool_call>",), CallFormat(
        (_MINIMAX,), Spelling("<minimax:tool_call>\n", "", "", "\n", "\n</minimax:tool_call>"),
    )),
    (("<arg_key>",), CallFormat((_GLM,), Spelling(between="\n"))),
    (("<function=", "<parameter="), CallFormat(
        (_QWEN_XML,), Spelling("", "<tool_call>\n", "\n</tool_call>", "\n"), ends_thoughts=_QWEN_XML.starts[:1],
    )),
    (('<function name="', '<param name="'), CallFormat((_MINICPM,), Spelling(between="\n"))),
    (("<function=",), CallFormat((_FUNCTIONARY,), Spelling("", "<function=", "</function>"))),
    (("[TOOL_CALLS]", "[CALL_ID]"), CallFormat((_MISTRAL_IDS, _MISTRAL_ARRAY), Spelling("", "[TOOL_CALLS]"))),
    (("[TOOL_CALLS]", "[ARGS]"), CallFormat((_MISTRAL, _MISTRAL_ARRAY), Spelling("", "[TOOL_CALLS]"))),
    (("[TOOL_CALLS]",), CallFormat((_MISTRAL_ARRAY, _MISTRAL), Spelling("[TOOL_CALLS]"))),
    (("<|START_ACTION|>",), CallFormat((_COMMAND,), Spelling("<|START_ACTION|>", end="<|END_ACTION|>"))),
    (("<TOOLCALL>",), CallFormat((_NEMOTRON,), Spelling("<TOOLCALL>", end="</TOOLCALL>"))),
    (("<|tool_call|>",), CallFormat((_GRANITE,), Spelling("<|tool_call|>"))),
    (("<tool_calls>[",), CallFormat((_APRIEL,), Spelling("<tool_calls>", end="</tool_calls>"))),
    (("<|tool_list_start|>",), CallFormat((_LFM2,), Spelling("<|tool_call_start|>", end="<|tool_call_end|>"))),
    (("<|tool_call_start|>",), CallFormat((_LFM2,), Spelling("<|tool_call_start|>", end="<|tool_call_end|>"))),
    (("<function_calls>",), CallFormat((_OLMO,), Spelling("<function_calls>\n", "", "", "\n", "\n</function_calls>"))),
    (("<tool_call>",), _HERMES_FORMAT),
)  # fmt: skip


def call_format(source: str) -> CallFormat:
    """The format of a chat template.

    Without a known text it is `GENERIC`: Llama 3's bare JSON, and the tags of Hermes."""
    return next((form for texts, form in FORMATS if all(text in source for text in texts)), GENERIC)
