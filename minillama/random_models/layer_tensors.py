"""The tensors of a layer in published files.

They are those that every file needs, and those that the files of its family add.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minillama.model import Config
from minillama.model.layer_kinds import Attention, Layer
from minillama.model.tensor_table import ARRAYS, LINEAR, Sizes, required, tensor_name


@dataclass(frozen=True)
class FileTensors:
    """Tensors of a family beyond those that every file needs.

    fields: optional fields of `Block`, in layers that can have them. biases: fields with a bias; `output_norm` and
    `output` too. whole_norms: norms of queries and keys are of all heads at once. fused_gate: the rows of the gate are
    in `ffn_up`.
    """

    fields: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    whole_norms: bool = False
    fused_gate: bool = False


_QKV = ("attn_q", "attn_k", "attn_v")
_HEAD_NORMS = ("attn_q_norm", "attn_k_norm")
_POST_NORMS = ("post_attention_norm", "post_ffw_norm")
_SHARED = ("ffn_gate_shexp",)
_GATED_SHARED = (*_SHARED, "ffn_gate_inp_shexp")
_CHOICE = ("exp_probs_b",)
_EXPERTS = ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
_DENSE = ("ffn_up", "ffn_down")
FILES: Mapping[str, FileTensors] = {
    "llama": FileTensors(),
    "mistral3": FileTensors(),
    "smollm3": FileTensors(),
    "qwen2": FileTensors(biases=_QKV),
    "qwen3": FileTensors(_HEAD_NORMS),
    "qwen2vl": FileTensors(biases=_QKV),
    "qwen3vl": FileTensors(_HEAD_NORMS),
    "qwen3vlmoe": FileTensors(_HEAD_NORMS),
    "qwen2moe": FileTensors(_GATED_SHARED, _QKV),
    "qwen3moe": FileTensors(_HEAD_NORMS),
    "qwen3next": FileTensors((*_HEAD_NORMS, *_GATED_SHARED, "ssm_ba")),
    "qwen35": FileTensors(_HEAD_NORMS),
    "qwen35moe": FileTensors((*_HEAD_NORMS, *_GATED_SHARED)),
    "chatglm": FileTensors(("attn_qkv",), ("attn_qkv",), fused_gate=True),
    "glm4": FileTensors(_POST_NORMS, _QKV, fused_gate=True),
    "glm4moe": FileTensors((*_HEAD_NORMS, *_CHOICE, *_SHARED), _QKV),
    "gemma": FileTensors(),
    "gemma2": FileTensors(_POST_NORMS),
    "gemma3": FileTensors((*_HEAD_NORMS, *_POST_NORMS)),
    "gemma4": FileTensors((*_HEAD_NORMS, *_POST_NORMS, "attn_v", "layer_output_scale")),
    "phi2": FileTensors(("attn_norm_bias",), (*_QKV, "attn_output", *_DENSE, "output_norm", "output")),
    "phi3": FileTensors(("attn_qkv",), fused_gate=True),
    "granite": FileTensors(),
    "granitemoe": FileTensors(_SHARED),
    "granitehybrid": FileTensors((*_SHARED, "ssm_conv1d_bias")),
    "nemotron_h": FileTensors(("ssm_conv1d_bias",)),
    "lfm2": FileTensors(_HEAD_NORMS),
    "lfm2moe": FileTensors((*_HEAD_NORMS, *_CHOICE)),
    "minicpm": FileTensors(),
    "ernie4_5": FileTensors(),
    "ernie4_5-moe": FileTensors((*_CHOICE, *_SHARED)),
    "olmo2": FileTensors(_HEAD_NORMS, whole_norms=True),
    "hunyuan-dense": FileTensors(_HEAD_NORMS),
    "seed_oss": FileTensors(biases=_QKV),
    "exaone4": FileTensors(_HEAD_NORMS),
    "cohere2": FileTensors(),
    "starcoder2": FileTensors(("attn_norm_bias", "ffn_norm_bias"), (*_QKV, "attn_output", *_DENSE, "output_norm")),
    "gpt-oss": FileTensors(("attn_sinks",), (*_QKV, "attn_output", *_EXPERTS)),
    "deepseek2": FileTensors(("attn_q_a", *_CHOICE, *_SHARED)),
    "minimax-m2": FileTensors((*_HEAD_NORMS, *_CHOICE), whole_norms=True),
}
_OF_EXPERTS = ("_exps", "_shexp", "exp_probs_b", "ffn_gate_inp")
_FIELDS = (*ARRAYS, *LINEAR)
_ORDER = ("attn_norm", "attn_", "ssm_", "shortconv_", "post_attention_norm", "ffn_norm", "ffn_", "")  # beginnings
_OF_KEYS_AND_VALUES = ("attn_k", "attn_v", "attn_k_norm")


def layer_tensors(config: Config, metadata: Mapping[str, Any], number: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and numpy shapes of the tensors of one layer.

    metadata: hyperparameters by their keys, without the architecture before them.
    """
    layer, files = config.layer(number), FILES[config.architecture]
    listed = _listed_fields(config, metadata, number)

    def width_of(field: str) -> int:
        if field in _HEAD_NORMS:
            heads = {"attn_q_norm": sizes.queries, "attn_k_norm": sizes.keys}
            return heads[field] if files.whole_norms else sizes.attention.key_length
        return _width(field, metadata, number)

    sizes = Sizes(config, layer, width_of, listed.__contains__)
    wanted = required(config, layer, listed.__contains__) | listed
    for field in sorted(wanted, key=_place):
        name, shape = tensor_name(config.family, number, field), (LINEAR.get(field) or ARRAYS[field])(sizes)
        if name is None or 0 in shape or (field in _OF_KEYS_AND_VALUES and _reads_another(layer)):
            continue
        yield name, shape
        if field in files.biases:
            yield f"{name.removesuffix('weight')}bias", shape[:-1]


def _place(field: str) -> tuple[int, int]:
    """The place of a field in a file: as a token passes the layer."""
    part = next(number for number, begin in enumerate(_ORDER) if field.startswith(begin))
    return part, _FIELDS.index(field)


def _listed_fields(config: Config, metadata: Mapping[str, Any], number: int) -> set[str]:
    """Optional fields of a layer, by its family and its network: dense, or of experts."""
    files = FILES[config.architecture]
    if config.expert_count and number >= metadata.get("leading_dense_block_count", 0):
        return {*files.fields, "ffn_gate_inp"}
    gate = {"ffn_gate"} if config.family.gated and not files.fused_gate else set()
    return gate | {field for field in files.fields if not any(part in field for part in _OF_EXPERTS)}


def _reads_another(layer: Layer) -> bool:
    """Whether a layer reads the keys and values of another."""
    return isinstance(layer, Attention) and layer.source is not None


def _width(field: str, metadata: Mapping[str, Any], number: int) -> int:
    """Columns of a matrix that the metadata gives, not the kind of the layer."""
    dense = metadata["feed_forward_length"]
    dense = dense[number] if isinstance(dense, list) else dense
    expert = metadata.get("expert_feed_forward_length", dense)
    return {
        "attn_q_b": metadata.get("attention.q_lora_rank", 0),
        "ffn_down": dense,
        "ffn_down_exps": expert,
        "ffn_down_shexp": metadata.get(
            "expert_shared_feed_forward_length", expert * metadata.get("expert_shared_count", 1)
        ),
    }[field]
