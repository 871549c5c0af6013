"""Quantising: rounding weights to fewer bits, byte for byte as llama-quantize does it.

>>> quantise_rows(weights, TensorType.Q4_K)  # float32 [rows, K] -> uint8 [rows, bytes of a row]
>>> quantise_file("model-f16.gguf", "model-q4_k_m.gguf", Mix.named("Q4_K_M"))
"""

from minillama.gguf.quantise.quantise_file import Progress, Report, quantise_file
from minillama.gguf.quantise.quantise_rows import QUANTISERS, quantise_rows
from minillama.gguf.quantise.tensor_types import Options, Override, Plan, Step, plan_file

__all__ = [
    "QUANTISERS", "Options", "Override", "Plan", "Progress", "Report", "Step", "plan_file", "quantise_file",
    "quantise_rows",
]  # fmt: skip
