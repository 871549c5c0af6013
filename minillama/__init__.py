"""Labs on a readable JAX engine for large language models: deploy, measure, shard, optimise.

>>> import minillama as ml
>>> llm = ml.load()                     # the built-in storyteller; or ml.load("model.gguf", ctx_size=2048)
>>> print(llm.generate("Once upon a time", n=64, temp=0.8, seed=1))
"""

from minillama import start_guard as _start_guard  # noqa: F401  (first, so that Ctrl-C is handled from here)

# ruff: isort: split
from importlib import import_module
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

_LAZY_MODULES = {
    "LLM": "minillama.engine.llm",
    "load": "minillama.engine.load",
    "Sampling": "minillama.sampling.sampling_params",
}


def __getattr__(name: str) -> object:
    """Import LLM, load and Sampling on first use: `minillama --help` must not import JAX."""
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module 'minillama' has no attribute {name!r}")
    return getattr(import_module(_LAZY_MODULES[name]), name)
