"""One transformer for every family: frozen `Config`, `Params` as a pytree, pure `forward`, cache as a value."""

from minillama.model.architectures import FAMILIES
from minillama.model.cache import Cache, Store, cache_bytes, empty_cache, grow, take
from minillama.model.config import Config, read_config
from minillama.model.forward import forward, unembed
from minillama.model.params import Block, Linear, Params

__all__ = [
    "FAMILIES",
    "Block",
    "Cache",
    "Config",
    "Linear",
    "Params",
    "Store",
    "cache_bytes",
    "empty_cache",
    "forward",
    "grow",
    "read_config",
    "take",
    "unembed",
]
