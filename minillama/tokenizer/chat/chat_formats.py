"""Built-in chat templates for `--chat-template NAME`, under llama.cpp's names.

They serve models whose own template is missing or broken. None of them writes the BOS token: the tokenizer adds it if
the model uses one. In a format without system messages, the system text becomes part of the first user message.
"""

from collections.abc import Mapping
from types import MappingProxyType

# All turns have the same form: role, content, end mark. Then the start of the answer follows.
_TURNS = "{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}%s{%% endif %%}"
_CHATML = _TURNS % (
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}",
    "{{ '<|im_start|>assistant\\n' }}",
)
# [INST] ... [/INST] encloses the message of the user (or the system).
_LLAMA2 = """\
{%- set ns = namespace(open=false) -%}
{%- for m in messages -%}
    {%- if not ns.open -%}{{ '[INST] ' }}{%- set ns.open = true -%}{%- endif -%}
    {%- if m.role == 'system' -%}{{ SYSTEM }}
    {%- elif m.role == 'user' -%}{{ m.content + ' [/INST]' }}
    {%- else -%}{{ m.content + '</s>' }}{%- set ns.open = false -%}
    {%- endif -%}
{%- endfor -%}"""
_MISTRAL = """\
{%- set ns = namespace(open=false) -%}
{%- for m in messages -%}
    {%- if not ns.open -%}{{ 'BEFORE[INST]AFTER' }}{%- set ns.open = true -%}{%- endif -%}
    {%- if m.role == 'system' -%}{{ m.content + '\\n\\n' }}
    {%- elif m.role == 'user' -%}{{ m.content + 'BEFORE[/INST]' }}
    {%- else -%}{{ 'AFTER' + ANSWER + '</s>' }}{%- set ns.open = false -%}
    {%- endif -%}
{%- endfor -%}"""
_MISTRAL7 = """\
{%- for m in messages -%}
    {%- if m.role == 'system' -%}{{ '[SYSTEM_PROMPT]BLANK' + m.content + '[/SYSTEM_PROMPT]' }}
    {%- elif m.role == 'user' -%}{{ '[INST]BLANK' + m.content + '[/INST]' }}
    {%- else -%}{{ 'BLANK' + m.content + '</s>' }}
    {%- endif -%}
{%- endfor -%}"""
_GEMMA = """\
{%- set ns = namespace(system='') -%}
{%- for m in messages -%}
    {%- if m.role == 'system' -%}{%- set ns.system = ns.system + m.content | trim -%}
    {%- elif m.role == 'assistant' -%}{{ '<start_of_turn>model\\n' + m.content | trim + '<end_of_turn>\\n' }}
    {%- else -%}
        {{ '<start_of_turn>' + m.role + '\\n' }}
        {%- if ns.system -%}{{ ns.system + '\\n\\n' }}{%- set ns.system = '' -%}{%- endif -%}
        {{ m.content | trim + '<end_of_turn>\\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""
_ORION = """\
{%- set ns = namespace(system='') -%}
{%- for m in messages -%}
    {%- if m.role == 'system' -%}{%- set ns.system = ns.system + m.content -%}
    {%- elif m.role == 'user' -%}
        {{ 'Human: ' }}
        {%- if ns.system -%}{{ ns.system + '\\n\\n' }}{%- set ns.system = '' -%}{%- endif -%}
        {{ m.content + '\\n\\nAssistant: </s>' }}
    {%- else -%}{{ m.content + '</s>' }}
    {%- endif -%}
{%- endfor -%}"""


def _by_role(system: str, user: str, assistant: str, begin: str = "", before: str = "") -> str:
    """Template with a different turn for each role.

    system, user, assistant: Jinja expressions. begin (of the answer) and before (all turns): plain text.
    """
    turn = (
        f"{{% if m.role == 'system' %}}{{{{ {system} }}}}{{% elif m.role == 'user' %}}{{{{ {user} }}}}"
        f"{{% else %}}{{{{ {assistant} }}}}{{% endif %}}"
    )
    return f"{{{{ '{before}' }}}}" + _TURNS % (turn, f"{{{{ '{begin}' }}}}")


def _tagged(end: str, begin: str = "<|assistant|>\\n", after_role: str = "|>\\n") -> str:
    """Template with turns of `<|role|>`, content and an end mark."""
    return _TURNS % (f"{{{{ '<|' + m.role + '{after_role}' + m.content + '{end}' }}}}", f"{{{{ '{begin}' }}}}")


BUILTIN_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "chatml": _CHATML,
        "llama2": _LLAMA2.replace("SYSTEM", "m.content + '\\n'"),
        "llama2-sys": _LLAMA2.replace("SYSTEM", "'<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n'"),
        "llama3": _TURNS
        % (
            "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}",
            "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}",
        ),
        "llama4": _TURNS
        % (
            "{{ '<|header_start|>' + m.role + '<|header_end|>\\n\\n' + m.content | trim + '<|eot|>' }}",
            "{{ '<|header_start|>assistant<|header_end|>\\n\\n' }}",
        ),
        "mistral-v1": _MISTRAL.replace("BEFORE", " ").replace("AFTER", " ").replace("ANSWER", "m.content"),
        "mistral-v3": _MISTRAL.replace("BEFORE", "").replace("AFTER", " ").replace("ANSWER", "m.content | trim"),
        "mistral-v3-tekken": _MISTRAL.replace("BEFORE", "").replace("AFTER", "").replace("ANSWER", "m.content"),
        "mistral-v7": _MISTRAL7.replace("BLANK", " "),
        "mistral-v7-tekken": _MISTRAL7.replace("BLANK", ""),
        "gemma": _GEMMA,
        "phi3": _tagged("<|end|>\\n"),
        "phi4": _TURNS
        % (
            "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}",
            "{{ '<|im_start|>assistant<|im_sep|>' }}",
        ),
        "falcon3": _tagged("\\n"),
        "zephyr": _tagged("<|endoftext|>\\n"),
        "orion": _ORION,
        "openchat": _by_role(
            "m.content + '<|end_of_turn|>'",
            "'GPT4 Correct User: ' + m.content + '<|end_of_turn|>'",
            "'GPT4 Correct Assistant: ' + m.content + '<|end_of_turn|>'",
            "GPT4 Correct Assistant:",
        ),
        "vicuna": _by_role(
            "m.content + '\\n\\n'",
            "'USER: ' + m.content + '\\n'",
            "'ASSISTANT: ' + m.content + '</s>\\n'",
            "ASSISTANT:",
        ),
        "vicuna-orca": _by_role(
            "'SYSTEM: ' + m.content + '\\n'",
            "'USER: ' + m.content + '\\n'",
            "'ASSISTANT: ' + m.content + '</s>\\n'",
            "ASSISTANT:",
        ),
        "chatglm3": _tagged("", "<|assistant|>", "|>\\n ").replace("{%", "{{ '[gMASK]sop' }}{%", 1),
        "chatglm4": _tagged("").replace("{%", "{{ '[gMASK]<sop>' }}{%", 1),
        "glmedge": _tagged("", "<|assistant|>"),
        "deepseek": _by_role(
            "m.content",
            "'### Instruction:\\n' + m.content + '\\n'",
            "'### Response:\\n' + m.content + '\\n<|EOT|>\\n'",
            "### Response:\\n",
        ),
        "deepseek2": _by_role(
            "m.content + '\\n\\n'",
            "'User: ' + m.content + '\\n\\n'",
            "'Assistant: ' + m.content + '<｜end▁of▁sentence｜>'",
            "Assistant:",
        ),
        "deepseek3": _by_role(
            "m.content + '\\n\\n'",
            "'<｜User｜>' + m.content",
            "'<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>'",
            "<｜Assistant｜>",
        ),
        "command-r": _by_role(
            "'<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + m.content | trim + '<|END_OF_TURN_TOKEN|>'",
            "'<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + m.content | trim + '<|END_OF_TURN_TOKEN|>'",
            "'<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + m.content | trim + '<|END_OF_TURN_TOKEN|>'",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        "minicpm": _by_role("m.content | trim", "'<用户>' + m.content | trim + '<AI>'", "m.content | trim"),
        "exaone3": _by_role(
            "'[|system|]' + m.content | trim + '[|endofturn|]\\n'",
            "'[|user|]' + m.content | trim + '\\n'",
            "'[|assistant|]' + m.content | trim + '[|endofturn|]\\n'",
            "[|assistant|]",
        ),
        "granite": _TURNS
        % (
            "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\\n' }}",
            "{{ '<|start_of_role|>assistant<|end_of_role|>' }}",
        ),
        "gpt-oss": _TURNS
        % (
            "{{ '<|start|>' + m.role + '<|message|>' + m.content }}"
            "{{ '<|return|>' if m.role == 'assistant' else '<|end|>' }}",
            "{{ '<|start|>assistant' }}",
        ),
    }
)
