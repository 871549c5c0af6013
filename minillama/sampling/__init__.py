"""llama.cpp's sampler chain, compiled and run on the device.

>>> chain = build_chain(Sampling(temp=0.8, top_k=40, seed=1), vocab_size=32000)
>>> state = chain.init(seed=1)
>>> token, state = chain(logits, state)

`Sampling` and the names of `sampling_params` and `sampler_order` do not import JAX.
"""

from typing import TYPE_CHECKING

from minillama.lazy_imports import import_on_use
from minillama.sampling.sampler_order import Sampler, parse_order, sequence_to_names
from minillama.sampling.sampling_params import Sampling, SamplingOptions, resolve_seed

if TYPE_CHECKING:
    from minillama.sampling.candidates import Candidates
    from minillama.sampling.chain import Chain, logprob
    from minillama.sampling.chain_builder import ChainStructure, build_chain, chain_structure
    from minillama.sampling.chain_report import StageReport, distribution, explain
    from minillama.sampling.sampled_token import SampledToken, sample, sample_rows
    from minillama.sampling.sampler_state import SamplerState

__all__ = [
    "Candidates",
    "Chain",
    "ChainStructure",
    "SampledToken",
    "Sampler",
    "SamplerState",
    "Sampling",
    "SamplingOptions",
    "StageReport",
    "build_chain",
    "chain_structure",
    "distribution",
    "explain",
    "logprob",
    "parse_order",
    "resolve_seed",
    "sample",
    "sample_rows",
    "sequence_to_names",
]

# The chain (and JAX) is imported on first use: the command line needs only the options.
__getattr__ = import_on_use(
    __name__,
    {
        "Candidates": "candidates",
        "Chain": "chain",
        "ChainStructure": "chain_builder",
        "SampledToken": "sampled_token",
        "SamplerState": "sampler_state",
        "StageReport": "chain_report",
        "build_chain": "chain_builder",
        "chain_structure": "chain_builder",
        "distribution": "chain_report",
        "explain": "chain_report",
        "logprob": "chain",
        "sample": "sampled_token",
        "sample_rows": "sampled_token",
    },
)
