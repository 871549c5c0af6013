"""The options of a completion as answers show them: `generation_settings`, and `params` of a slot."""

import math

from minillama.server.requests.fields import SAMPLING
from minillama.server.requests.generation_request import RANDOM_SEED, ChatFormat, GenerationRequest

_NAMES = {option: field.name for field, option in SAMPLING.items()}
_ORDER = (
    "temp", "dynatemp_range", "dynatemp_exp", "top_k", "top_p", "min_p", "top_nsigma", "xtc_probability",
    "xtc_threshold", "typical", "repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "mirostat", "mirostat_ent", "mirostat_lr",
    "min_keep",
)  # fmt: skip


def generation_settings(request: GenerationRequest, *, short: bool = False) -> dict[str, object]:
    """All options by llama-server's names; `short` leaves out texts and lists."""
    sampling = request.sampling
    n = request.number("n_predict", -1)
    shown: dict[str, object] = {"seed": RANDOM_SEED if sampling.seed < 0 else sampling.seed}
    shown |= {_NAMES[option]: getattr(sampling, option) for option in _ORDER}
    shown |= {
        "adaptive_target": -1.0,  # a sampler that minillama does not have, at its off values
        "adaptive_decay": 0.9,
        "max_tokens": n,
        "n_predict": n,
        "n_keep": request.number("n_keep"),
        "n_discard": request.number("n_discard"),
        "n_probs": request.number("n_probs"),
        "samplers": [sampler.option for sampler in sampling.order],
        "speculative.types": request.drafting,
        "lora": [],
        **_chat(request.chat, is_stream=request.is_on("stream")),
    }
    flags = ("ignore_eos", "stream", "timings_per_token", "post_sampling_probs", "backend_sampling")
    shown |= {name: request.is_on(name) for name in flags}
    return shown if short else shown | _long(request)


def _long(request: GenerationRequest) -> dict[str, object]:
    biases = [
        {"bias": None if math.isinf(bias) else bias, "token": token} for token, bias in request.sampling.logit_bias
    ]
    return {
        "dry_sequence_breakers": list(request.breakers),
        "stop": list(request.stop),
        "logit_bias": biases,
        "grammar": request.constraint.gbnf,
        "grammar_lazy": request.is_on("grammar_lazy"),
        "grammar_triggers": [],
        "preserved_tokens": [],
    }


def _chat(chat: ChatFormat, *, is_stream: bool) -> dict[str, object]:
    return {
        "chat_format": chat.name,
        "reasoning_format": chat.reasoning_format,
        "reasoning_in_content": is_stream and chat.reasoning_format == "deepseek-legacy",
        "generation_prompt": chat.generation_prompt,
    }
