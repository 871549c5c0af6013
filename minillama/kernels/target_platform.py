"""The platform that programs are traced for.

It is that of JAX's devices, or another one that programs are compiled for. A few functions have another form for
processors than for accelerators. They ask here, and nowhere else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_target: ContextVar[str | None] = ContextVar("_target", default=None)


def target_platform() -> str:
    """JAX's name of the platform, such as `cpu`, `gpu` or `tpu`."""
    return _target.get() or jax.default_backend()


def is_foreign() -> bool:
    """Whether programs are traced for other devices than those of this process."""
    return _target.get() is not None


@contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Load weights and trace programs inside as on a machine whose accelerator is of `platform`.

    Weights are in the form of that platform, on the devices of this process. JAX's traces are forgotten at both ends,
    as they depend on the platform; so this is for tools and tests, not for a model in use. Inside of another one for
    the same platform it changes nothing.
    """
    if _target.get() == platform:
        yield
        return
    jax.clear_caches()
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
        jax.clear_caches()
