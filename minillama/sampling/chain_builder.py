"""Build the chain of some options, and say which options share one compiled program."""

from typing import NamedTuple

import jax
import numpy as np

from minillama.array_types import Bool
from minillama.errors import OptionError
from minillama.sampling.candidates import MOST_TO_SORT, bucket
from minillama.sampling.chain import Chain, Stage
from minillama.sampling.packed_chain import PackedChain, pack_chain
from minillama.sampling.pytree import Number, Whole
from minillama.sampling.sampler_order import DEFAULT_ORDER, Sampler, parse_order
from minillama.sampling.sampling_params import Sampling
from minillama.sampling.stages.draw import Dist, Mirostat1, Mirostat2
from minillama.sampling.stages.dry import Dry
from minillama.sampling.stages.penalties import LogitBias, Penalties
from minillama.sampling.stages.temperature import DynamicTemperature, Temperature
from minillama.sampling.stages.top_tokens import AFTER_CHAIN, BEFORE_CHAIN, NOTHING, TopReport
from minillama.sampling.stages.truncation import MinP, TopK, TopNSigma, TopP, Typical, Xtc

_SHARED_BIASES = 64  # logit biases, and
_SHARED_TOP = 32  # likeliest tokens, that every shared chain has room for
_MOST = 2**24  # of whole numbers, which float32 holds exactly; more than a vocabulary or window has
_FEW, _MANY = 64, MOST_TO_SORT  # widths of the list after a top-k
_MAY_BE_OFF = frozenset(Sampler) - {Sampler.DRY}  # cheap enough for every shared chain


class ChainStructure(NamedTuple):
    """The part of the options that a compiled program depends on.

    All others are numbers that it is given. Chains of one structure can be stacked.
    """

    order: tuple[Sampler, ...]  # of the stages that are in the chain
    top_k: int | None  # width of the list after a top-k; None: as long as the vocabulary
    is_shared: bool  # whether stages can be off
    is_dynamic: bool  # whether the temperature depends on the entropy, where that is not an option
    min_keep: bool  # whether min-p ranks the candidates
    biases: int
    window: int  # past tokens that stages see
    mirostat: int
    top: int  # likeliest tokens of a report; 0 for none


def chain_structure(sampling: Sampling, vocab_size: int, *, is_shared: bool = False) -> ChainStructure:
    """The structure of the chain that `build_chain` makes of these options."""
    has_all = is_shared and not sampling.mirostat and sampling.order == parse_order(DEFAULT_ORDER)
    order, bounded = [], False
    for sampler in sampling.order:
        is_cheap = sampler in (Sampler.TEMPERATURE, Sampler.MIN_P) or (sampler is Sampler.TOP_P and bounded)
        if sampling.enabled(sampler) or (sampler in _MAY_BE_OFF if has_all else is_cheap):
            order.append(sampler)
        bounded = bounded or (sampler is Sampler.TOP_K and sampling.enabled(sampler))
    biases, top = len(sampling.logit_bias), sampling.n_probs
    if has_all:
        biases, top = max(biases, _SHARED_BIASES), max(top, _SHARED_TOP)
    return ChainStructure(
        order=tuple(order),
        top_k=_list_width(sampling.top_k, vocab_size, is_shared=has_all),
        is_shared=has_all,
        is_dynamic=has_all or (sampling.dynatemp_range > 0 and not sampling.mirostat),
        min_keep=has_all or sampling.min_keep > 1,
        biases=bucket(biases, minimum=8) if biases else 0,
        window=penalty_window(sampling),
        mirostat=sampling.mirostat,
        top=min(bucket(top, minimum=_SHARED_TOP), vocab_size) if top else 0,
    )


def build_chain(sampling: Sampling, vocab_size: int, *, is_shared: bool = False) -> Chain:
    """Build the chain for the given options.

    is_shared: for texts that are sampled together. The chain has all stages, so that most options have one structure
    (see `chain_structure`). Otherwise it has the stages that these options need, and these cause a new compilation:
    another order of the stages; a stage switched on or off (except min_p, temperature, and top_p after a top_k, which
    also run at their off values); another power of two above top_k, repeat_last_n, n_probs or the number of biases;
    min_keep crossing 1; another mirostat. No other option recompiles.
    Raises OptionError for token ids outside the vocabulary.
    """
    return jax.device_put(_host_chain(sampling, vocab_size, is_shared=is_shared))


def build_packed_chain(sampling: Sampling, vocab_size: int, *, is_shared: bool = False) -> PackedChain:
    """Build a chain as few arrays on the host; see `build_chain`."""
    return pack_chain(_host_chain(sampling, vocab_size, is_shared=is_shared))


def penalty_window(sampling: Sampling) -> int:
    """Number of past tokens in the penalty window of a chain with these options."""
    return bucket(max(sampling.repeat_last_n, sampling.dry_penalty_last_n, 1))


def _host_chain(sampling: Sampling, vocab_size: int, *, is_shared: bool) -> Chain:
    """A chain whose numbers are numpy arrays."""
    structure = chain_structure(sampling, vocab_size, is_shared=is_shared)
    stages: list[Stage] = [_logit_bias(sampling, vocab_size, structure.biases)] if structure.biases else []
    for sampler in structure.order:
        stages += _stages(sampler, sampling, vocab_size, structure)
    tau, eta = _real(sampling.mirostat_ent), _real(sampling.mirostat_lr)
    samplers = Dist(), Mirostat1(tau, eta), Mirostat2(tau, eta)
    report = TopReport(_whole(_when(sampling)), structure.top) if structure.top else None
    last = samplers[structure.mirostat]
    return Chain(tuple(stages), last, vocab_size, structure.window, structure.is_shared, report)


def _list_width(top_k: int, vocab_size: int, *, is_shared: bool) -> int | None:
    """The width of the list after a top-k, None for no short list."""
    if top_k <= 0:
        return None
    minimum = _MANY if is_shared and top_k > _FEW else _FEW
    width = min(bucket(top_k, minimum), vocab_size)
    return width if width <= _MANY else None


def _when(sampling: Sampling) -> int:
    if not sampling.n_probs:
        return NOTHING
    return AFTER_CHAIN if sampling.post_sampling_probs else BEFORE_CHAIN


def _real(value: float) -> Number:
    return np.array(value, np.float32)


def _whole(value: int) -> Whole:
    return np.array(min(value, _MOST), np.int32)


def _stages(sampler: Sampler, s: Sampling, vocab_size: int, structure: ChainStructure) -> list[Stage]:
    """The stages of a sampler, with their options on the device."""
    match sampler:
        case Sampler.PENALTIES:
            strengths = (_real(value) for value in (s.repeat_penalty, s.frequency_penalty, s.presence_penalty))
            return [Penalties(_whole(s.repeat_last_n), *strengths)]
        case Sampler.DRY:
            lengths = _whole(s.dry_allowed_length), _whole(s.dry_penalty_last_n)
            return [Dry(_real(s.dry_multiplier), _real(s.dry_base), *lengths, _breakers(s, vocab_size))]
        case Sampler.TOP_N_SIGMA:
            return [TopNSigma(_real(s.top_nsigma))]
        case Sampler.TOP_K:
            return [TopK(_whole(min(s.top_k, vocab_size)), structure.top_k)]
        case Sampler.TYP_P:
            return [Typical(_real(s.typical), _whole(s.min_keep))]
        case Sampler.TOP_P:
            return [TopP(_real(s.top_p), _whole(s.min_keep))]
        case Sampler.MIN_P:
            return [MinP(_real(s.min_p), _whole(s.min_keep), structure.min_keep)]
        case Sampler.XTC:
            return [Xtc(_real(s.xtc_probability), _real(s.xtc_threshold), _whole(s.min_keep))]
        case Sampler.TEMPERATURE:
            return _temperatures(s, structure)


def _temperatures(s: Sampling, structure: ChainStructure) -> list[Stage]:
    """The stage of the temperature.

    In a shared chain a fixed one and one that depends on the entropy; one of both is on.
    """
    is_dynamic = s.dynatemp_range > 0 and not s.mirostat
    fixed = Temperature(_real(1.0 if is_dynamic else s.temp))
    dynamic = DynamicTemperature(_real(s.temp), _real(s.dynatemp_range), _real(s.dynatemp_exp))
    if structure.is_shared:
        return [fixed, dynamic]
    return [dynamic if is_dynamic else fixed]


def _logit_bias(sampling: Sampling, vocab_size: int, width: int) -> LogitBias:
    ids = [token for token, _ in sampling.logit_bias]
    if max(ids, default=0) >= vocab_size:
        raise OptionError(f"logit_bias names token {max(ids)}; the vocabulary ends at {vocab_size - 1}")
    tokens = np.full(width, vocab_size, np.int32)
    biases = np.zeros(width, np.float32)
    tokens[: len(ids)] = ids
    biases[: len(ids)] = [bias for _, bias in sampling.logit_bias]
    return LogitBias(tokens, biases)


def _breakers(sampling: Sampling, vocab_size: int) -> Bool[np.ndarray, "V"]:
    ids = sampling.dry_sequence_breakers
    if ids and max(ids) >= vocab_size:
        raise OptionError(f"dry_sequence_breakers names token {max(ids)}; the vocabulary ends at {vocab_size - 1}")
    table = np.zeros(vocab_size, bool)
    table[list(ids)] = True
    return table
