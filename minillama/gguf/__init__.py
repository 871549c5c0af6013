"""GGUF files: a memory-mapping reader, quantisation, and models with random weights. No JAX here.

>>> file = open_gguf("model.gguf")
>>> file.metadata["general.architecture"], file.tensors["token_embd.weight"].shape
('llama', (32000, 2048))
"""

from minillama.gguf.reader import GGUF, Tensor, dequantize, open_gguf
from minillama.gguf.types import BLOCKS, FileType, TensorType

__all__ = ["BLOCKS", "GGUF", "FileType", "Tensor", "TensorType", "dequantize", "open_gguf"]
