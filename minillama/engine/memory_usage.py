"""Memory usage of a loaded model, by formula and as measured."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import psutil

from minillama.engine.backends.local import LocalBackend
from minillama.engine.batches import Batches
from minillama.engine.loading.memory_budget import predict
from minillama.engine.result import Completion
from minillama.engine.session import Session
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import cache_bytes


@dataclass(frozen=True)
class Usage:
    """Memory in bytes, by formula and in use; None if it is not reported."""

    weights: int  # tensors of the file
    weights_held: int  # arrays of the parameters; for mapped weights these are pages of the file
    cache: int  # KV cache with the current capacity of the session
    cache_held: int
    compute: int  # compute buffers for the largest chunk of a prompt
    compute_held: int | None  # XLA's temporary buffers of the prefill of such a chunk
    resident: int  # whole process, including Python, JAX and compiled programs
    resident_file: int | None  # part of it: file pages and shared memory
    peak: int | None  # peak of the resident memory
    device_in_use: int | None  # accelerator memory
    device_peak: int | None

    def as_dict(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """A completion with its timings, and the memory usage after it."""

    completion: Completion
    usage: Usage


def memory_usage(
    backend: LocalBackend, session: Session, batches: Batches, cache_types: CacheTypes, file_bytes: int
) -> Usage:
    """Measure the memory usage of a model and a session.

    Compiles the prefill of one chunk if it is not compiled yet. file_bytes: bytes of the tensors in the model file.
    """
    device, config = backend.device, backend.config
    stats = device.memory_stats() or {}
    arrays = {id(leaf): leaf.nbytes for leaf in jax.tree.leaves(backend.params)}  # a tied head is one array
    process = psutil.Process().memory_info()
    chunk = batches.within(session.capacity).ubatch_size
    formula = predict(config, file_bytes, session.capacity, cache_types, batches, device)
    return Usage(
        weights=formula.weights,
        weights_held=sum(arrays.values()),
        cache=cache_bytes(config, session.capacity, cache_types, chunk=batches.within(session.ctx_size).ubatch_size),
        cache_held=session.nbytes,
        compute=formula.compute,
        compute_held=session.temporary_bytes(chunk),
        resident=process.rss,
        resident_file=getattr(process, "shared", None),
        peak=peak_resident(),
        device_in_use=stats.get("bytes_in_use"),
        device_peak=stats.get("peak_bytes_in_use"),
    )


def peak_resident() -> int | None:
    """Peak resident memory of this process in bytes."""
    if sys.platform == "linux":  # getrusage may report the peak of the parent process
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset
    import resource  # not available on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
