"""Facts of the model and defaults of requests: `/models` and `/props`."""

import secrets

from minillama.gguf.display_names import file_type_name
from minillama.server.answers.generation import unix_time
from minillama.server.answers.generation_settings import generation_settings
from minillama.server.model_host import BUILD_INFO, ModelHost
from minillama.server.requests.generation_request import GenerationRequest

VOCABULARY_TYPES = {"llama": 1, "gpt2": 2, "bert": 3, "t5": 4, "rwkv": 5}
MEDIA_MARKER = f"<__media_{secrets.token_hex(16)}__>"


def model_list(host: ModelHost) -> dict[str, object]:
    """The one model, in OpenAI's form (`data`) and Ollama's (`models`)."""
    name, llm, settings = host.model_name, host.llm, host.settings
    unknown = ("modified_at", "size", "digest", "description", "parameters")
    details = {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "",
               "quantization_level": ""}  # fmt: skip
    ours = {
        "id": name,
        "aliases": sorted(settings.aliases or (name,)),
        "tags": sorted(settings.tags),
        "object": "model",
        "created": unix_time(),
        "owned_by": "minillama",
        "meta": {
            "vocab_type": VOCABULARY_TYPES.get(str(llm.metadata.get("tokenizer.ggml.model")), 0),
            "n_vocab": llm.tokenizer.size,
            "n_ctx": host.engine.ctx_size,
            "n_ctx_train": llm.config.context_length,
            "n_embd": llm.config.embedding_length,
            "n_params": llm.file.parameters,
            "size": sum(tensor.nbytes for tensor in llm.file.tensors.values()),
            "ftype": file_type_name(llm.file),
        },
    }
    theirs = {
        "name": name,
        "model": name,
        "type": "model",
        "tags": [""],
        "capabilities": ["completion"],
        "details": details,
    }
    return {"models": [theirs | dict.fromkeys(unknown, "")], "object": "list", "data": [ours]}


def properties(host: ModelHost) -> dict[str, object]:
    """The value of `/props`."""
    settings, llm, template = host.settings, host.llm, host.template
    defaults = GenerationRequest(
        (), llm.sampling(**settings.sampling), settings.stop, {"n_predict": settings.n, "n_keep": settings.keep}, ()
    )
    found: dict[str, object] = {
        "default_generation_settings": {
            "params": generation_settings(defaults, short=True),
            "n_ctx": host.engine.ctx_size,
        },
        "total_slots": host.engine.slots,
        "model_alias": host.model_name,
        "model_ftype": file_type_name(llm.file),
        "model_path": str(llm.path),
        "modalities": {"vision": False, "video": False, "audio": False},
        "media_marker": MEDIA_MARKER,
        "endpoint_slots": settings.has_slots,
        "endpoint_props": settings.has_props,
        "endpoint_metrics": settings.has_metrics,
        "ui": settings.has_page,
        "ui_settings": {},
        "chat_template": template.source,
        "chat_template_caps": template_capabilities(template.source),
        "bos_token": template.bos_token,
        "eos_token": template.eos_token,
        "build_info": BUILD_INFO,
        "is_sleeping": host.sleep.is_asleep,
        "cors_proxy_enabled": False,
    }
    if settings.chat.use_jinja and template.tool_source:
        found["chat_template_tool_use"] = template.tool_source
    return found


def template_capabilities(source: str) -> dict[str, bool]:
    """Features of a chat template, by the variables that it names."""
    has_tools = "tools" in source
    return {
        "supports_object_arguments": False,
        "supports_parallel_tool_calls": False,
        "supports_preserve_reasoning": "preserve_thinking" in source or "clear_thinking" in source,
        "supports_reasoning_effort": "reasoning_effort" in source,
        "supports_string_content": True,
        "supports_system_role": "no system" not in source.lower(),
        "supports_tool_calls": "tool_calls" in source,
        "supports_tools": has_tools,
        "supports_typed_content": "'type'" in source or ".type" in source,
    }
