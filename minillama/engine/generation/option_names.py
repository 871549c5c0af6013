"""Names of the options of `generate` and `chat`, and those that other libraries give them."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from minillama.engine.generate_options import GenerateOptions
from minillama.errors import OptionError, quoted

# OpenAI, transformers, vLLM, Ollama and llama-cpp-python to minillama
SAME = MappingProxyType(
    {
        "enable_thinking": "chat_template_kwargs={'enable_thinking': ...}",
        "logits_bias": "logit_bias",
        "max_completion_tokens": "n",
        "max_new_tokens": "n",
        "max_tokens": "n",
        "n_predict": "n",
        "num_predict": "n",
        "random_seed": "seed",
        "repetition_penalty": "repeat_penalty",
        "stop_sequences": "stop",
        "stop_strings": "stop",
        "stream": "llm.stream or llm.chat_stream",
        "temperature": "temp",
        "tfs_z": "top_p",
    }
)


def check_template_variables(variables: object) -> None:
    """Raise OptionError for anything but a mapping from names."""
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        raise OptionError(f"chat_template_kwargs is {quoted(variables)}; give a dict of template variables")


def check_option_names(options: Iterable[str]) -> None:
    """Raise OptionError for an unknown option, with the name that it has here."""
    known = GenerateOptions.__annotations__.keys()
    for name in options:
        if name in known:
            continue
        close = difflib.get_close_matches(name, known | SAME.keys(), n=1)
        fix = SAME.get(name) or (SAME.get(close[0], close[0]) if close else "one of " + ", ".join(sorted(known)))
        raise OptionError(f"{name} is not an option here; use {fix}")
