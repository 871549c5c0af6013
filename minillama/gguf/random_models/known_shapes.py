"""The shapes of real models, by name.

Numbers: the config.json of each model's repository.
"""

from minillama.errors import OptionError
from minillama.gguf.random_models.chat_templates import LLAMA_2, ZEPHYR
from minillama.gguf.random_models.delta_net_shape import DeltaNetShape
from minillama.gguf.random_models.gpt_oss_shape import GptOssShape
from minillama.gguf.random_models.latent_shape import LatentShape
from minillama.gguf.random_models.model_shapes import ModelShape, RopeFactors
from minillama.gguf.random_models.vocabulary_specs import glm_47, gpt_oss, llama_3, qwen_2, qwen_35, sentencepiece


def shape_named(name: str) -> ModelShape:
    """Find a shape by name; OptionError for an unknown name."""
    if name not in SHAPES:
        raise OptionError(f"unknown model shape {name}; known: {', '.join(SHAPES)}")
    return SHAPES[name]


SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            "tinyllama-1.1b", "TinyLlama 1.1B Chat", "1.1B", "llama",
            layers=22, embedding=2048, heads=32, kv_heads=4, head_size=64, feed_forward=5632, context=2048,
            rms_epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=sentencepiece(32000, ZEPHYR),
        ),
        ModelShape(
            "llama-3.2-1b", "Llama 3.2 1B Instruct", "1B", "llama",
            layers=16, embedding=2048, heads=32, kv_heads=8, head_size=64, feed_forward=8192, context=131072,
            rms_epsilon=1e-5, rope_base=5e5, tied=True, vocabulary=llama_3(),
            rope_factors=RopeFactors(32.0, 1.0, 4.0, 8192),
        ),
        ModelShape(
            "qwen2.5-0.5b", "Qwen2.5 0.5B Instruct", "0.5B", "qwen2",
            layers=24, embedding=896, heads=14, kv_heads=2, head_size=64, feed_forward=4864, context=32768,
            rms_epsilon=1e-6, rope_base=1e6, tied=True, vocabulary=qwen_2(), qkv_bias=True,
        ),
        ModelShape(
            "llama-2-7b", "Llama 2 7B Chat", "7B", "llama",
            layers=32, embedding=4096, heads=32, kv_heads=32, head_size=128, feed_forward=11008, context=4096,
            rms_epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=sentencepiece(32000, LLAMA_2),
        ),
        DeltaNetShape(
            "qwen3.5-0.8b", "Qwen3.5 0.8B", "0.8B", "qwen35",
            layers=24, embedding=1024, heads=8, kv_heads=2, head_size=256, feed_forward=3584, context=262144,
            rms_epsilon=1e-6, rope_base=1e7, tied=True, vocabulary=qwen_35(), rotating=64,
            linear_key_heads=16, linear_value_heads=16, linear_head_size=128,
        ),
        LatentShape(
            "glm-4.7-flash-8l", "GLM-4.7-Flash, 8 of 47 layers", "5B", "deepseek2",
            layers=8, embedding=2048, heads=20, kv_heads=1, head_size=256, feed_forward=10240, context=202752,
            rms_epsilon=1e-5, rope_base=1e6, tied=False, vocabulary=glm_47(), query_rank=768, kv_rank=512, rotating=64,
            value_size=256, experts=64, experts_used=4, expert_size=1536, experts_scale=1.8,
        ),
        GptOssShape(
            "gpt-oss-20b-4l", "gpt-oss-20b, 4 of 24 layers", "5B", "gpt-oss",
            layers=4, embedding=2880, heads=64, kv_heads=8, head_size=64, feed_forward=2880, context=131072,
            rms_epsilon=1e-5, rope_base=1.5e5, tied=False, vocabulary=gpt_oss(), qkv_bias=True, file_type="MXFP4_MOE",
            experts=32, experts_used=4, window=128, rope_factor=32.0, original_context=4096,
        ),
        ModelShape(
            "tiny", "Tiny", "1.4M", "llama",
            layers=2, embedding=256, heads=4, kv_heads=2, head_size=64, feed_forward=512, context=512,
            rms_epsilon=1e-5, rope_base=1e4, tied=False, vocabulary=sentencepiece(512, ZEPHYR),
        ),
    )
}  # fmt: skip
