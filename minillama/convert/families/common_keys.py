"""Metadata that nearly every family has, in the order of llama.cpp's converter."""

from collections.abc import Callable

from minillama.convert.family_row import Key, flag, integer, number, per_layer, word
from minillama.convert.folder.folder_config import FolderConfig
from minillama.errors import FormatError, quoted

SOFTMAX, SIGMOID = 1, 2
_GATING = {"softmax": SOFTMAX, "sigmoid": SIGMOID}
_GATING_SETTINGS = (
    "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
    "expert_selection_fn",
)  # fmt: skip
_SCALING = {"linear": "linear", "yarn": "yarn", "longrope": "longrope", "su": "longrope"}


def file_type(config: FolderConfig) -> int:
    """The most frequent type of the tensors, as llama.cpp numbers it."""
    return config.file_type


def _scaling_type(config: FolderConfig) -> str | None:
    rope = config.global_rope
    kind = _SCALING.get(str(rope.get("rope_type")))
    return kind if kind == "longrope" or rope.get("factor") is not None else None


def _scaled(*settings: str, kinds: tuple[str, ...] = ("yarn",)) -> Callable[[FolderConfig], object]:
    """A setting of RoPE that counts with some kinds of scaling only."""

    def value(config: FolderConfig) -> object:
        rope = config.global_rope
        found = next((rope[name] for name in settings if rope.get(name) is not None), None)
        return found if _scaling_type(config) in kinds else None

    return value


def _original_context(config: FolderConfig) -> object:
    if _scaling_type(config) != "yarn":
        return None
    return config.global_rope.get("original_max_position_embeddings") or config.need("max_position_embeddings")


def rope_sections(config: FolderConfig) -> list[int] | None:
    """Pairs of RoPE for time, height, width and a fourth axis."""
    sections = config.rope.get("mrope_section")
    return None if sections is None else [*sections, 0, 0, 0, 0][:4]


def _gating(config: FolderConfig) -> int | None:
    found = config.find(*_GATING_SETTINGS)
    if found is not None and found not in _GATING:
        raise FormatError(f"config.json: the experts' scores are {quoted(found)}; known: {', '.join(_GATING)}")
    return None if found is None else _GATING[found]


def whole_window_pattern(config: FolderConfig) -> list[bool]:
    """For each layer: does it see a window only?"""
    return [kind == "sliding_attention" for kind in config.layer_types[: config.own_layers]]


CONTEXT = integer(
    "context_length", "max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length",
    "model_max_length",
)  # fmt: skip
WIDTH = integer("embedding_length", "hidden_size", "n_embd", "dim")
HIDDEN = integer(
    "feed_forward_length", "prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size", "n_inner",
    "hidden_dim",
)  # fmt: skip
LAYERS = integer("block_count", lambda config: config.layers)
HEADS = integer("attention.head_count", "num_attention_heads", "n_head", "n_heads")
KV_HEADS = integer("attention.head_count_kv", "num_key_value_heads", "n_kv_heads")
RMS_EPSILON = number("attention.layer_norm_rms_epsilon", "rms_norm_eps", "norm_eps")
NORM_EPSILON = number("attention.layer_norm_epsilon", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
ROPE_BASE = number("rope.freq_base", lambda config: config.global_rope.get("rope_theta"))
EXPERTS = integer("expert_count", "num_local_experts", "num_experts", "n_routed_experts")
USED_EXPERTS = integer(
    "expert_used_count", "num_experts_per_tok", "num_experts_per_token", "top_k_experts"
)  # fmt: skip
KEY_SIZE = integer("attention.key_length", "head_dim")
VALUE_SIZE = integer("attention.value_length", "head_dim")
FILE_TYPE = integer("general.file_type", file_type)
VOCABULARY_SIZE = integer("vocab_size", lambda config: config.need("vocab_size"))
ROTATED = integer("rope.dimension_count", lambda config: config.head_size)
WINDOW = integer("attention.sliding_window", lambda config: config.need("sliding_window"))
WINDOW_PATTERN = per_layer("attention.sliding_window_pattern", whole_window_pattern)

COMMON: tuple[Key, ...] = (
    LAYERS,
    CONTEXT,
    WIDTH,
    HIDDEN,
    HEADS,
    KV_HEADS,
    flag("attention.causal", lambda config: False if config.values.get("is_causal") is False else None),
    word("rope.scaling.type", _scaling_type),
    number("rope.scaling.factor", _scaled("factor", kinds=("linear", "yarn"))),
    integer("rope.scaling.original_context_length", _original_context),
    number("rope.scaling.yarn_ext_factor", _scaled("extrapolation_factor")),
    number("rope.scaling.yarn_attn_factor", _scaled("attention_factor", "attn_factor")),
    number("rope.scaling.yarn_beta_fast", _scaled("beta_fast")),
    number("rope.scaling.yarn_beta_slow", _scaled("beta_slow")),
    per_layer("rope.dimension_sections", rope_sections),
    ROPE_BASE,
    number("rope.freq_base_swa", lambda config: config.rope.get("sliding_attention", {}).get("rope_theta")),
    RMS_EPSILON,
    NORM_EPSILON,
    EXPERTS,
    USED_EXPERTS,
    integer("expert_group_count", "n_group"),
    integer("expert_group_used_count", "topk_group"),
    integer("expert_gating_func", _gating),
    KEY_SIZE,
    VALUE_SIZE,
    FILE_TYPE,
)
