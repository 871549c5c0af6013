"""Hugging Face folders to GGUF files, as convert_hf_to_gguf.py writes them. No JAX, no torch.

A converter renames tensors, changes a few of them (the order of RoPE's pairs, experts in one tensor), and copies
hyperparameters and vocabulary into metadata. `families/` has a row for each architecture.

>>> plan = plan_folder("Qwen3-0.6B", OutputType.BF16)
>>> write_plan(plan, "qwen3.gguf")
"""

from minillama.convert.conversion_plan import ConversionPlan, plan_folder
from minillama.convert.gguf_output import write_plan
from minillama.convert.output_types import OutputType

__all__ = ["ConversionPlan", "OutputType", "plan_folder", "write_plan"]
