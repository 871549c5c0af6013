"""Requests that must be refused: malformed, huge, and templates of unbounded work."""

import json

NONSENSE: tuple[tuple[str, bytes], ...] = (
    ("/completion", b"{"),
    ("/completion", b"[]"),
    ("/completion", b'{"prompt": {"a": 1}}'),
    ("/completion", b'{"prompt": "a", "n_predict": "many"}'),
    ("/completion", b'{"prompt": [1, 99999999]}'),
    ("/completion", b'{"prompt": "a", "grammar": "root ::= ("}'),
    ("/completion", b'{"prompt": "a", "grammar": "root ::= \\"' + b"a" * 5000 + b'\\"{2000}"}'),
    ("/completion", b'{"prompt": "a", "json_schema": {"type": "unheard of"}}'),
    ("/completion", b'{"prompt": "a", "json_schema": {"required": [{}], "properties": {}}}'),
    ("/completion", b"[" * 100_000),
    ("/completion", b'{"prompt": "' + b"a" * (20 << 20) + b'"}'),
    ("/completion", b'{"prompt": "' + b"a cat " * (1 << 20) + b'"}'),
    ("/completion", b'{"prompt": "\xff\xfe"}'),
    ("/v1/completions", b'{"prompt": "a", "max_tokens": 1e999}'),
    ("/v1/chat/completions", b'{"messages": "hello"}'),
    ("/v1/chat/completions", b'{"messages": [{"role": 1}]}'),
    ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "' + b"dog " * 20_000 + b'"}]}'),
    ("/tokenize", b'{"content": 1e999}'),
    ("/nowhere", b"{}"),
)

# A plain template, and one kind of unbounded work for each value of `work`.
TEMPLATE = """\
{%- if work == 'time' -%}
{%- for a in range(99999) -%}{%- for b in range(99999) -%}{%- endfor -%}{%- endfor -%}
{%- elif work == 'memory' -%}
{%- set kept = namespace(all='x') -%}{%- for a in range(60) -%}{%- set kept.all = kept.all ~ kept.all -%}{%- endfor -%}
{%- elif work == 'text' -%}
{%- for a in range(99999) -%}{{ 'x' * 9999 }}{%- endfor -%}
{%- elif work == 'depth' -%}
{%- macro again(n) -%}{{ again(n + 1) }}{%- endmacro -%}{{ again(0) }}
{%- elif work == 'refusal' -%}
{{ raise_exception('not these messages') }}
{%- endif -%}
{%- for message in messages -%}
<{{ message.role }}> {{ message.content }}
{% endfor -%}
<assistant>"""
HOSTILE = tuple(
    json.dumps({"messages": [{"role": "user", "content": "hello"}], "chat_template_kwargs": {"work": work}}).encode()
    for work in ("time", "memory", "text", "depth", "refusal")
)
