"""Sampling options: defaults, ranges, the order of the stages, llama.cpp's printed line."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.errors import OptionError
from minillama.sampling import Sampler, Sampling, SamplingOptions, parse_order, resolve_seed, sequence_to_names

NAN, INF = float("nan"), float("inf")


def test_defaults_are_llama_cpps() -> None:
    s = Sampling()
    assert (s.seed, s.temp, s.top_k, s.top_p, s.min_p, s.typical, s.top_nsigma) == (-1, 0.8, 40, 0.95, 0.05, 1.0, -1.0)
    assert (s.repeat_last_n, s.repeat_penalty, s.presence_penalty, s.frequency_penalty) == (64, 1.0, 0.0, 0.0)
    assert (s.dry_multiplier, s.dry_base, s.dry_allowed_length, s.dry_penalty_last_n) == (0.0, 1.75, 2, 64)
    assert (s.xtc_probability, s.xtc_threshold, s.dynatemp_range, s.dynatemp_exp) == (0.0, 0.1, 0.0, 1.0)
    assert (s.mirostat, s.mirostat_ent, s.mirostat_lr, s.min_keep) == (0, 5.0, 0.1, 0)
    names = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"
    assert ";".join(sampler.option for sampler in s.order) == names


def test_options_have_the_same_fields() -> None:
    assert list(SamplingOptions.__annotations__) == [field.name for field in dataclasses.fields(Sampling)]
    assert SamplingOptions.__annotations__ == {field.name: field.type for field in dataclasses.fields(Sampling)}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("temp", NAN, "temp is nan; it should be a finite number"),
        ("temp", INF, "temp is inf"),
        ("temp", "warm", "temp is 'warm'"),
        ("temp", True, "temp is True"),
        ("temp", None, "temp is None"),
        ("top_k", 1.5, "top_k is 1.5; it should be a whole number"),
        ("top_p", 95, "top_p is 95; it should be a number from 0 to 1"),
        ("top_p", -0.1, "top_p is -0.1"),
        ("min_p", NAN, "min_p is nan"),
        ("typical", 1.01, "typical is 1.01"),
        ("top_nsigma", -INF, "top_nsigma is -inf"),
        ("repeat_last_n", -1, "repeat_last_n is -1; it should be a whole number from 0 to 1048576"),
        ("repeat_penalty", 0.0, "repeat_penalty is 0.0; it should be a number from 1e-30 to 1e"),
        ("presence_penalty", NAN, "presence_penalty is nan"),
        ("frequency_penalty", INF, "frequency_penalty is inf"),
        ("dry_multiplier", NAN, "dry_multiplier is nan"),
        ("dry_base", -1, "dry_base is -1"),
        ("dry_allowed_length", -1, "dry_allowed_length is -1"),
        ("dry_penalty_last_n", -1, "dry_penalty_last_n is -1"),
        ("dry_sequence_breakers", 3, "dry_sequence_breakers is 3"),
        ("dry_sequence_breakers", ("\n",), r"dry_sequence_breakers\[0\] is"),
        ("xtc_probability", 2, "xtc_probability is 2"),
        ("xtc_threshold", -1, "xtc_threshold is -1"),
        ("dynatemp_range", -0.5, "dynatemp_range is -0.5"),
        ("dynatemp_exp", NAN, "dynatemp_exp is nan"),
        ("mirostat", 3, "mirostat is 3; it should be a whole number from 0 to 2"),
        ("mirostat_ent", -1, "mirostat_ent is -1"),
        ("mirostat_lr", NAN, "mirostat_lr is nan"),
        ("min_keep", -1, "min_keep is -1"),
        ("seed", -2, "seed is -2"),
        ("seed", 2**32, "seed is 4294967296"),
        ("logit_bias", ((1, NAN),), r"logit_bias\[0\] is nan"),
        ("logit_bias", ((1, INF),), r"logit_bias\[0\] is inf"),
        ("logit_bias", ((-1, 1.0),), r"logit_bias\[0\] token is -1"),
        ("logit_bias", (1, 2), "logit_bias is"),
        ("samplers", 7, "samplers is 7"),
        ("samplers", "top_k;nonsense", "'nonsense': no such sampler; use penalties, dry, "),
        ("samplers", "kz", "letter 'z': no such sampler; use e penalties, "),
        ("samplers", "top_k;infill", "'infill': not supported"),
        ("samplers", "ka", "adaptive_p is not supported"),
    ],
)
def test_wrong_values_are_named(name: str, value: object, says: str) -> None:
    with pytest.raises(OptionError, match=says) as error:
        Sampling(**{name: value})
    assert "\n" not in str(error.value)


def test_numpy_numbers_become_python_numbers() -> None:
    s = Sampling(temp=1, top_k=np.int64(3), top_p=np.float32(0.5), logit_bias=[[3, -INF]], dry_sequence_breakers=[1])
    assert s == Sampling(temp=1.0, top_k=3, top_p=0.5, logit_bias=((3, -INF),), dry_sequence_breakers=(1,))
    assert (type(s.temp), type(s.top_k), type(s.top_p)) == (float, int, float)
    assert hash(s) == hash(dataclasses.replace(s))


def test_order_by_names_aliases_and_letters() -> None:
    assert parse_order("top_k;Top-P; topk ;nucleus") == (Sampler.TOP_K, Sampler.TOP_P, Sampler.TOP_K, Sampler.TOP_P)
    assert parse_order("temp") == parse_order("temperature") == parse_order("t") == (Sampler.TEMPERATURE,)
    assert parse_order("typ;typ-p;typical;minp") == (Sampler.TYP_P,) * 3 + (Sampler.MIN_P,)
    assert parse_order("") == parse_order(";") == ()
    assert parse_order("kpt") == (Sampler.TOP_K, Sampler.TOP_P, Sampler.TEMPERATURE)


@given(st.lists(st.sampled_from(list(Sampler)), max_size=6))
def test_sequence_survives_as_names(order: list[Sampler]) -> None:
    letters = "".join(sampler.letter for sampler in order)
    assert parse_order(sequence_to_names(letters)) == tuple(order)


def test_description_is_llama_cpps_line() -> None:
    # As printed by llama-completion with the same options.
    default = "?penalties -> ?dry -> ?top-n-sigma -> top-k -> ?typical -> top-p -> min-p -> ?xtc -> temp-ext -> dist"
    assert Sampling().describe() == f"sampler chain: logits -> {default}"
    s = Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0, typical=0.5, repeat_penalty=1.1, xtc_probability=0.5)
    s = dataclasses.replace(s, logit_bias=((1, 1.0),), dry_multiplier=0.8, top_nsigma=1.0)
    stages = (
        "logit-bias -> penalties -> dry -> top-n-sigma -> ?top-k -> typical -> ?top-p -> ?min-p -> xtc -> ?temp-ext"
    )
    assert s.describe() == f"sampler chain: logits -> {stages} -> dist"
    assert Sampling(mirostat=1).describe() == "sampler chain: logits -> temp -> mirostat"
    assert Sampling(mirostat=2, temp=1.0).describe() == "sampler chain: logits -> ?temp -> mirostat-v2"
    assert Sampling(samplers="top_k;temp", top_k=-3).describe() == "sampler chain: logits -> ?top-k -> temp-ext -> dist"


def test_seed() -> None:
    assert resolve_seed(7) == 7
    found = {resolve_seed(-1) for _ in range(8)}
    assert len(found) > 1
    assert all(0 <= seed < 2**32 for seed in found)


def test_options_do_not_import_jax() -> None:
    program = (
        "import sys; from minillama.sampling import Sampling; Sampling().describe(); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
