"""The tensors of a layer: their names in the file, their kinds, and their shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from minillama.model.architectures import Family
from minillama.model.config import Config
from minillama.model.layer_kinds import Attention, DeltaNet, LatentAttention, Layer, Mamba2, ShortConvolution

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Sizes of one layer: of its kind, and widths found in the file."""

    config: Config
    layer: Layer
    width_of: Callable[[str], int]  # the last axis of a tensor of the layer, 0 where it is missing
    has: Callable[[str], bool]  # whether the file has a field

    @property
    def width(self) -> int:
        """D."""
        return self.config.embedding_length

    @property
    def attention(self) -> Attention:
        """The heads of an attention layer; none in others."""
        return self.layer if isinstance(self.layer, Attention) else Attention(0, 0, 0, 0, 1.0)

    @property
    def delta_net(self) -> DeltaNet:
        """The heads of a Gated DeltaNet layer; none in others."""
        return self.layer if isinstance(self.layer, DeltaNet) else DeltaNet(0, 0, 0, 0, False)

    @property
    def mamba(self) -> Mamba2:
        """The heads of a Mamba-2 layer; none in others."""
        return self.layer if isinstance(self.layer, Mamba2) else Mamba2(0, 1, 0, 0, 0)

    @property
    def convolution(self) -> ShortConvolution | DeltaNet | Mamba2:
        """The layer with its convolution; none in others."""
        kinds = ShortConvolution | DeltaNet | Mamba2
        return self.layer if isinstance(self.layer, kinds) else ShortConvolution(0, 0)

    @property
    def latent(self) -> LatentAttention:
        """The heads of a layer with latent attention; none in others."""
        return self.layer if isinstance(self.layer, LatentAttention) else LatentAttention(0, 0, 0, 0, 0, 1.0)

    @property
    def heads(self) -> Attention | LatentAttention:
        """The heads of a layer with attention of either kind; none in others."""
        return self.layer if isinstance(self.layer, Attention | LatentAttention) else self.attention

    @property
    def queries(self) -> int:
        """Channels of all queries."""
        return self.heads.head_count * self.heads.key_length

    @property
    def query_rows(self) -> int:
        """Rows of attn_q."""
        return self.queries * (2 if self.attention.has_gate else 1)

    @property
    def keys(self) -> int:
        """Rows of attn_k."""
        return self.attention.head_count_kv * self.attention.key_length

    @property
    def values(self) -> int:
        """Rows of attn_v."""
        return self.attention.head_count_kv * self.attention.value_length

    @property
    def mixed(self) -> int:
        """Columns of attn_output."""
        return self.heads.head_count * self.heads.value_length

    @property
    def up(self) -> int:
        """Rows of ffn_up: those of a gate too where the file has none."""
        fused = self.config.family.gated and not self.has("ffn_gate")
        return (2 if fused else 1) * self.width_of("ffn_down")

    def head_norm(self, field: str, head: int, whole: int) -> int:
        """Weights of a norm of queries or keys: of a head, or of all."""
        return whole if self.width_of(field) == whole else head


Size = Callable[[Sizes], Shape]


def _d(s: Sizes) -> Shape:
    return (s.width,)


def _qkv_rows(s: Sizes) -> Shape:
    if isinstance(s.layer, DeltaNet):
        return s.delta_net.channels, s.width
    return s.query_rows + s.keys + s.values, s.width


def _memories(s: Sizes) -> Shape:
    """One number for each memory of a recurrent layer."""
    return (s.mamba.heads or s.delta_net.value_heads,)


def _decays(s: Sizes) -> Shape:
    return (s.mamba.heads, 1) if s.mamba.heads else (s.delta_net.value_heads,)


def _ssm_in(s: Sizes) -> Shape:
    if s.mamba.heads:
        return s.mamba.inner + s.mamba.channels + s.mamba.heads, s.width
    return s.delta_net.channels + s.delta_net.value_channels, s.width


def _ssm_norm(s: Sizes) -> Shape:
    return (s.mamba.groups, s.mamba.inner // s.mamba.groups) if s.mamba.heads else (s.delta_net.size,)


def _expert_rows(s: Sizes) -> Shape:
    return s.config.expert_count, s.width_of("ffn_down_exps"), s.width


def _shared_rows(s: Sizes) -> Shape:
    return s.width_of("ffn_down_shexp"), s.width


# Matrices [N, K], or stacks of them; a bias [N] comes along where the file has one.
LINEAR: Mapping[str, Size] = {
    "attn_q": lambda s: (s.query_rows, s.width),
    "attn_k": lambda s: (s.keys, s.width),
    "attn_v": lambda s: (s.values, s.width),
    "attn_qkv": _qkv_rows,
    "attn_gate": lambda s: (s.delta_net.value_channels, s.width),
    "attn_q_a": lambda s: (s.width_of("attn_q_b"), s.width),
    "attn_q_b": lambda s: (s.queries, s.width_of("attn_q_b")),
    "attn_kv_a_mqa": lambda s: (s.latent.cached_length, s.width),
    "attn_k_b": lambda s: (s.latent.head_count, s.latent.kv_lora_rank, s.latent.nope_length),
    "attn_v_b": lambda s: (s.latent.head_count, s.latent.value_length, s.latent.kv_lora_rank),
    "attn_kv_b": lambda s: (
        s.latent.head_count * (s.latent.nope_length + s.latent.value_length),
        s.latent.kv_lora_rank,
    ),
    "attn_output": lambda s: (s.width, s.mixed),
    "ssm_in": _ssm_in,
    "ssm_beta": lambda s: (s.delta_net.value_heads, s.width),
    "ssm_alpha": lambda s: (s.delta_net.value_heads, s.width),
    "ssm_ba": lambda s: (2 * s.delta_net.value_heads, s.width),
    "ssm_out": lambda s: (s.width, s.mamba.inner or s.delta_net.value_channels),
    "shortconv_in_proj": lambda s: (3 * s.convolution.channels, s.width),
    "shortconv_out_proj": lambda s: (s.width, s.convolution.channels),
    "ffn_gate": lambda s: (s.width_of("ffn_down"), s.width),
    "ffn_up": lambda s: (s.up, s.width),
    "ffn_down": lambda s: (s.width, s.width_of("ffn_down")),
    "ffn_gate_inp": lambda s: (s.config.expert_count, s.width),
    "ffn_gate_exps": _expert_rows,
    "ffn_up_exps": _expert_rows,
    "ffn_gate_up_exps": lambda s: (s.config.expert_count, 2 * s.width_of("ffn_down_exps"), s.width),
    "ffn_down_exps": lambda s: (s.config.expert_count, s.width, s.width_of("ffn_down_exps")),
    "ffn_gate_shexp": _shared_rows,
    "ffn_up_shexp": _shared_rows,
    "ffn_down_shexp": lambda s: (s.width, s.width_of("ffn_down_shexp")),
    "inp_gate": lambda s: (s.config.per_layer_length, s.width),
    "proj": lambda s: (s.width, s.config.per_layer_length),
}
# Float arrays.
ARRAYS: Mapping[str, Size] = {
    "attn_norm": _d,
    "attn_norm_bias": _d,
    "attn_q_norm": lambda s: (s.head_norm("attn_q_norm", s.attention.key_length, s.queries),),
    "attn_k_norm": lambda s: (s.head_norm("attn_k_norm", s.attention.key_length, s.keys),),
    "ssm_conv1d": lambda s: (s.convolution.channels, s.convolution.taps),
    "ssm_conv1d_bias": lambda s: (s.convolution.channels,),
    "shortconv_conv": lambda s: (s.convolution.channels, s.convolution.taps),
    "ssm_dt": _memories,
    "ssm_a": _decays,
    "ssm_d": _decays,
    "ssm_norm": _ssm_norm,
    "attn_sinks": lambda s: (s.attention.head_count,),
    "attn_q_a_norm": lambda s: (s.width_of("attn_q_b"),),
    "attn_kv_a_norm": lambda s: (s.latent.kv_lora_rank,),
    "post_attention_norm": _d,
    "ffn_norm": _d,
    "ffn_norm_bias": _d,
    "post_ffw_norm": _d,
    "pre_ffw_norm_2": _d,
    "post_ffw_norm_1": _d,
    "post_ffw_norm_2": _d,
    "exp_probs_b": lambda s: (s.config.expert_count,),
    "ffn_gate_inp_scale": _d,
    "ffn_gate_inp_shexp": _d,
    "post_norm": _d,
    "layer_output_scale": lambda s: (1,),
}
# Names in the file, after blk.N, where they are not the field's with .weight.
_NAMES: Mapping[str, str] = {
    "attn_norm_bias": "attn_norm.bias",
    "ffn_norm_bias": "ffn_norm.bias",
    "exp_probs_b": "exp_probs_b.bias",
    "ssm_dt": "ssm_dt.bias",
    "ssm_a": "ssm_a",
    "ssm_d": "ssm_d",
    "ssm_conv1d_bias": "ssm_conv1d.bias",
    "shortconv_in_proj": "shortconv.in_proj.weight",
    "shortconv_conv": "shortconv.conv.weight",
    "shortconv_out_proj": "shortconv.out_proj.weight",
    "ffn_gate_inp_scale": "ffn_gate_inp.scale",
}


def tensor_name(family: Family, layer: int, field: str) -> str | None:
    """The name of a field of `Block` in a file, or None."""
    if field == "ffn_norm":
        field = family.ffn_norm
    elif field == family.ffn_norm:  # the name belongs to `ffn_norm` then
        return None
    return f"blk.{layer}.{_NAMES.get(field, f'{field}.weight')}"


def required(config: Config, layer: Layer, has: Callable[[str], bool]) -> set[str]:
    """Fields without which a layer has no meaning.

    Of fused and separate tensors one form is enough.
    """
    family = config.family
    needed = set[str]()
    if isinstance(layer, Attention):
        needed |= _required_by_attention(layer, has)
    if isinstance(layer, DeltaNet):
        needed |= {"ssm_conv1d", "ssm_dt", "ssm_a", "ssm_norm", "ssm_out"}
        needed |= {"ssm_in"} if has("ssm_in") else {"attn_qkv", "attn_gate"}
        needed |= {"ssm_ba"} if has("ssm_ba") else {"ssm_beta", "ssm_alpha"}
    if isinstance(layer, Mamba2):
        needed |= {"ssm_in", "ssm_conv1d", "ssm_dt", "ssm_a", "ssm_d", "ssm_norm", "ssm_out"}
    if isinstance(layer, ShortConvolution):
        needed |= {"shortconv_in_proj", "shortconv_conv", "shortconv_out_proj"}
    if isinstance(layer, LatentAttention):
        needed |= {"attn_output", "attn_kv_a_mqa", "attn_kv_a_norm"}
        needed |= {"attn_q_a", "attn_q_a_norm", "attn_q_b"} if has("attn_q_a") else {"attn_q"}
        needed |= {"attn_kv_b"} if has("attn_kv_b") else {"attn_k_b", "attn_v_b"}
    needed |= {"attn_norm", "ffn_norm"} if family.pre_norms else {"post_attention_norm", "post_ffw_norm"}
    if family.parallel or family.one_branch:
        needed.remove("ffn_norm")
    if family.one_branch and layer.has_mixer:
        return needed
    if config.per_layer_length:
        needed |= {"inp_gate", "proj", "post_norm"}
    if not has("ffn_gate_inp"):
        return needed | {"ffn_up", "ffn_down"}
    if has("ffn_gate_shexp"):
        needed |= {"ffn_up_shexp", "ffn_down_shexp"}
    if has("pre_ffw_norm_2"):
        needed |= {"ffn_up", "ffn_down", "ffn_gate_inp_scale", "post_ffw_norm_1", "post_ffw_norm_2"}
    opened = {"ffn_gate_up_exps"} if has("ffn_gate_up_exps") else {"ffn_gate_exps", "ffn_up_exps"}
    return needed | {"ffn_gate_inp", "ffn_down_exps"} | opened


def _required_by_attention(layer: Attention, has: Callable[[str], bool]) -> set[str]:
    if has("attn_qkv"):
        return {"attn_qkv", "attn_output"}
    if layer.source is not None:
        return {"attn_q", "attn_output"}
    return {"attn_q", "attn_k", "attn_output"} | (set() if layer.norms_values else {"attn_v"})
