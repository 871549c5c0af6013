"""The shapes of real models, by name; `tiny-ARCHITECTURE` is a small model of any architecture.

Numbers: the config.json of each model's repository.
"""

import difflib

from minillama.errors import OptionError
from minillama.model import FAMILIES
from minillama.random_models.frequency_divisors import StretchedLowFrequencies
from minillama.random_models.model_shape import ModelShape
from minillama.random_models.tiny_shapes import tiny_shape
from minillama.random_models.vocabularies.chat_templates import LLAMA_2, ZEPHYR
from minillama.random_models.vocabularies.vocabulary_specs import (
    glm_47,
    gpt_oss,
    llama_3,
    qwen_2,
    qwen_35,
    sentencepiece,
)

TINY = "tiny-"


def shape_names() -> list[str]:
    """Names of all shapes."""
    return [*SHAPES, *(TINY + architecture for architecture in FAMILIES)]


def shape_named(name: str) -> ModelShape:
    """Find a shape by name; OptionError with the nearest names for an unknown one."""
    if name in SHAPES:
        return SHAPES[name]
    if name.startswith(TINY) and name.removeprefix(TINY) in FAMILIES:
        return tiny_shape(name.removeprefix(TINY))
    names = shape_names()
    nearest = difflib.get_close_matches(name[:64], names, n=3, cutoff=0)
    raise OptionError(f"unknown model shape {name}; the nearest of {len(names)} known ones: {', '.join(nearest)}")


SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            "tinyllama-1.1b", "TinyLlama 1.1B Chat", "1.1B", "llama",
            layers=22, embedding=2048, heads=32, kv_heads=4, head_size=64, feed_forward=5632, context=2048,
            epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=sentencepiece(32000, ZEPHYR),
        ),
        ModelShape(
            "llama-3.2-1b", "Llama 3.2 1B Instruct", "1B", "llama",
            layers=16, embedding=2048, heads=32, kv_heads=8, head_size=64, feed_forward=8192, context=131072,
            epsilon=1e-5, rope_base=5e5, tied=True, vocabulary=llama_3(),
            rope_factors=StretchedLowFrequencies(32.0, 1.0, 4.0, 8192),
        ),
        ModelShape(
            "qwen2.5-0.5b", "Qwen2.5 0.5B Instruct", "0.5B", "qwen2",
            layers=24, embedding=896, heads=14, kv_heads=2, head_size=64, feed_forward=4864, context=32768,
            epsilon=1e-6, rope_base=1e6, tied=True, vocabulary=qwen_2(),
        ),
        ModelShape(
            "llama-2-7b", "Llama 2 7B Chat", "7B", "llama",
            layers=32, embedding=4096, heads=32, kv_heads=32, head_size=128, feed_forward=11008, context=4096,
            epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=sentencepiece(32000, LLAMA_2),
        ),
        ModelShape(
            "qwen3.5-0.8b", "Qwen3.5 0.8B", "0.8B", "qwen35",
            layers=24, embedding=1024, heads=8, kv_heads=2, head_size=256, feed_forward=3584, context=262144,
            epsilon=1e-6, rope_base=1e7, tied=True, vocabulary=qwen_35(),
            keys={
                "rope.dimension_count": 64, "rope.dimension_sections": [12, 10, 10, 0], "full_attention_interval": 4,
                "ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.group_count": 16, "ssm.time_step_rank": 16,
                "ssm.inner_size": 2048,
            },
        ),
        ModelShape(
            "glm-4.7-flash-8l", "GLM-4.7-Flash, 8 of 47 layers", "5B", "deepseek2",
            layers=8, embedding=2048, heads=20, kv_heads=1, head_size=256, feed_forward=10240, context=202752,
            epsilon=1e-5, rope_base=1e6, tied=False, vocabulary=glm_47(),
            keys={
                "attention.key_length": 576, "attention.value_length": 512, "attention.key_length_mla": 256,
                "attention.value_length_mla": 256, "attention.q_lora_rank": 768, "attention.kv_lora_rank": 512,
                "rope.dimension_count": 64, "leading_dense_block_count": 1, "expert_count": 64, "expert_used_count": 4,
                "expert_group_count": 1, "expert_group_used_count": 1, "expert_feed_forward_length": 1536,
                "expert_shared_count": 1, "expert_gating_func": 2, "expert_weights_norm": True,
                "expert_weights_scale": 1.8,
            },
        ),
        ModelShape(
            "gpt-oss-20b-4l", "gpt-oss-20b, 4 of 24 layers", "5B", "gpt-oss",
            layers=4, embedding=2880, heads=64, kv_heads=8, head_size=64, feed_forward=2880, context=131072,
            epsilon=1e-5, rope_base=1.5e5, tied=False, vocabulary=gpt_oss(), file_type="MXFP4_MOE",
            keys={
                "attention.sliding_window": 128, "expert_count": 32, "expert_used_count": 4,
                "expert_feed_forward_length": 2880, "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0,
                "rope.scaling.original_context_length": 4096,
            },
        ),
        ModelShape(
            "tiny", "Tiny", "1.4M", "llama",
            layers=2, embedding=256, heads=4, kv_heads=2, head_size=64, feed_forward=512, context=512,
            epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=sentencepiece(512, ZEPHYR),
        ),
    )
}  # fmt: skip
