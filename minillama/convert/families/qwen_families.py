"""Qwen 2 to Qwen 3, with experts and with images (the text part)."""

from minillama.convert.families.common_keys import COMMON
from minillama.convert.family_row import Family, Weights, integer
from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.vocab.family_vocabularies import sentencepiece_or_byte_pairs
from minillama.convert.weights.fused_weights import split_experts, transposed_experts
from minillama.convert.weights.lazy_weight import LazyWeight

QWEN_MOE_KEYS = (
    *COMMON,
    integer("expert_feed_forward_length", "moe_intermediate_size"),
    integer("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
)
QWEN_EXPERTS = ("down_proj", "gate_proj", "up_proj")


def _gate_and_up(weight: LazyWeight) -> Weights:
    path = weight.name.removesuffix(".weight").removesuffix("gate_up_proj")
    gate, up = split_experts(weight)
    return [gate.renamed(f"{path}gate_proj.weight"), up.renamed(f"{path}up_proj.weight")]


def fused_gate_and_up(weight: LazyWeight, config: FolderConfig) -> Weights:
    return _gate_and_up(weight)


def fused_down(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    return weight.renamed(weight.name.removesuffix(".weight") + ".weight")


def vision_gate_and_up(weight: LazyWeight, config: FolderConfig) -> Weights:
    """Gate and up of Qwen3-VL, which transformers stored transposed until its version 5."""
    rows = (2 * config.size("moe_intermediate_size"), config.size("hidden_size"))
    return _gate_and_up(weight if weight.shape[1:] == rows else transposed_experts(weight))


def vision_down(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    rows = (config.size("hidden_size"), config.size("moe_intermediate_size"))
    return fused_down(weight if weight.shape[1:] == rows else transposed_experts(weight), config)


FUSED_EXPERTS = (
    (r"mlp\.experts\.gate_up_proj(\.weight)?$", fused_gate_and_up),
    (r"mlp\.experts\.down_proj(\.weight)?$", fused_down),
)


def _deepstack_layers(config: FolderConfig) -> int:
    """Layers that also get features of the image encoder's inner layers."""
    return len((config.values.get("vision_config") or {}).get("deepstack_visual_indexes", []))


DEEPSTACK = integer("n_deepstack_layers", _deepstack_layers)

FAMILIES = (
    Family("qwen2", ("Qwen2ForCausalLM", "KORMoForCausalLM"), COMMON, vocabulary=sentencepiece_or_byte_pairs),
    Family(
        "qwen2vl", ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen2VLModel"), COMMON,
        vocabulary=sentencepiece_or_byte_pairs,
    ),
    Family("qwen2moe", ("Qwen2MoeForCausalLM",), QWEN_MOE_KEYS, changes=FUSED_EXPERTS, experts=QWEN_EXPERTS),
    Family("qwen3", ("Qwen3ForCausalLM",), COMMON, vocabulary=sentencepiece_or_byte_pairs),
    Family("qwen3moe", ("Qwen3MoeForCausalLM",), QWEN_MOE_KEYS, changes=FUSED_EXPERTS, experts=QWEN_EXPERTS),
    Family(
        "qwen3vl", ("Qwen3VLForConditionalGeneration",), (*COMMON, DEEPSTACK), vocabulary=sentencepiece_or_byte_pairs
    ),
    Family(
        "qwen3vlmoe",
        ("Qwen3VLMoeForConditionalGeneration",),
        (*QWEN_MOE_KEYS, DEEPSTACK),
        changes=(
            (r"mlp\.experts\.gate_up_proj(\.weight)?$", vision_gate_and_up),
            (r"mlp\.experts\.down_proj(\.weight)?$", vision_down),
        ),
        experts=QWEN_EXPERTS,
    ),
)  # fmt: skip
