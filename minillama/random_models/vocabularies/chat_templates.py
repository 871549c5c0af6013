"""Chat templates of random models, equal to those of the real models for plain chats."""

ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set rest = messages[1:] %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)

LLAMA_3 = (
    "{% for message in messages %}"
    "{{ (bos_token if loop.first else '') + '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

CHATML_QWEN = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CHATML_QWEN_35 = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% else %}{{ '<think>\n' }}{% endif %}"
    "{% endif %}"
)

GLM_47 = (
    "{{ '[gMASK]<sop>' }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + ('</think>' if message['role'] == 'assistant' else '') "
    "+ message['content'] | trim }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|assistant|>' + ('</think>' if enable_thinking is defined and enable_thinking is false else '<think>') }}"
    "{% endif %}"
)

HARMONY = (
    "{{ '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: ' "
    "+ (reasoning_effort if reasoning_effort is defined else 'medium') + '\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>' }}"
    "{% if messages[0]['role'] in ('system', 'developer') %}"
    "{{ '<|start|>developer<|message|># Instructions\n\n' + messages[0]['content'] + '\n\n<|end|>' }}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{% if message['role'] == 'user' %}{{ '<|start|>user<|message|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + message['content'] "
    "+ ('<|return|>' if loop.last and not add_generation_prompt else '<|end|>') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)

ERNIE = (
    "{{ '<|begin_of_sentence|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + '<|end_of_sentence|>' }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)

HUNYUAN = (
    "{{ '<｜hy_begin▁of▁sentence｜>' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜hy_User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜hy_Assistant｜>' + message['content'] + '<｜hy_place▁holder▁no▁2｜>' }}"
    "{% else %}{{ message['content'] + '<｜hy_place▁holder▁no▁3｜>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜hy_Assistant｜>' }}{% endif %}"
)

NEMOTRON = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<SPECIAL_10>System\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<SPECIAL_11>User\n' + message['content'] + '\n' }}"
    "{% else %}{{ '<SPECIAL_11>Assistant\n' + message['content'] + '\n<SPECIAL_12>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<SPECIAL_11>Assistant\n<think>\n' }}{% endif %}"
)


def turns(begin: str, after_role: str, end: str, assistant: str = "assistant") -> str:
    """A template whose turns have one form: marks around role and message.

    assistant: the name of that role in the text.
    """
    return (
        "{% for message in messages %}"
        f"{{% set role = '{assistant}' if message['role'] == 'assistant' else message['role'] %}}"
        f"{{{{ '{begin}' + role + '{after_role}' + message['content'] + '{end}' }}}}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ '{begin}{assistant}{after_role}' }}}}{{% endif %}}"
    )
