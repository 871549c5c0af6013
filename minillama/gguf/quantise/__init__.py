"""Quantisation: round weights to fewer bits, with the same bytes as llama-quantize.

>>> quantise_rows(weights, TensorType.Q4_K)  # float32 [rows, K] -> uint8 [rows, bytes of a row]
>>> quantise_file("model-f16.gguf", "model-q4_k_m.gguf", Mix.named("Q4_K_M"))
"""

from minillama.gguf.quantise.file_quantiser import Progress, QuantiseReport, quantise_file
from minillama.gguf.quantise.quantise_plan import (
    MetadataOverride,
    QuantiseOptions,
    QuantisePlan,
    QuantiseStep,
    plan_file,
)
from minillama.gguf.quantise.row_quantiser import QUANTISERS, quantise_rows

__all__ = [
    "QUANTISERS",
    "MetadataOverride",
    "Progress",
    "QuantiseOptions",
    "QuantisePlan",
    "QuantiseReport",
    "QuantiseStep",
    "plan_file",
    "quantise_file",
    "quantise_rows",
]  # fmt: skip
