"""Labs on a readable JAX engine for large language models: deploy, measure, shard, optimise.

>>> import minillama as ml
>>> llm = ml.load()                     # the built-in storyteller; or ml.load("model.gguf", ctx_size=2048)
>>> print(llm.generate("Once upon a time", n=64, temp=0.8, seed=1))
"""

from minillama import start_guard as _start_guard  # noqa: F401  (first, so that Ctrl-C is handled from here)

# ruff: isort: split
from typing import TYPE_CHECKING

from minillama import env
from minillama.errors import (
    FormatError,
    MinillamaError,
    NonFiniteError,
    OptionError,
    ResourceError,
    UnsupportedError,
)
from minillama.lazy_imports import import_on_use

if TYPE_CHECKING:
    from minillama.engine.llm import LLM
    from minillama.engine.load import load
    from minillama.sampling.sampling_params import Sampling

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "FormatError",
    "MinillamaError",
    "NonFiniteError",
    "OptionError",
    "ResourceError",
    "Sampling",
    "UnsupportedError",
    "load",
]

env.prepare()  # XLA reads its flags once, when its backend starts

# Imported on first use: `minillama --help` must not import JAX.
__getattr__ = import_on_use(
    __name__,
    {
        "LLM": "engine.llm",
        "load": "engine.load",
        "Sampling": "sampling.sampling_params",
    },
)
