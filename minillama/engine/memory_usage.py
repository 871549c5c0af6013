"""What a model that runs really takes: memory beside the formulas of `engine.memory`, and one call with its timings."""

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
    """Bytes: what a formula says, then what is really held; None where the system or the device does not tell."""

    weights: int  # the file's tensors
    weights_held: int  # arrays of the parameters; of mapped weights they are the file's own pages
    cache: int  # of as many positions as the session has room for now
    cache_held: int
    compute: int  # for the largest chunk of a prompt
    compute_held: int | None  # XLA's temporaries of the program that reads such a chunk
    resident: int  # of the whole process, Python, JAX and compiled programs included
    resident_file: int | None  # of it, pages of files and shared memory, which others may use too
    peak: int | None  # the most that was resident at a time
    device_in_use: int | None  # of the accelerator
    device_peak: int | None

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """One call: what was written with its timings, and the memory when it had ended."""

    completion: Completion
    usage: Usage


def memory_usage(
    backend: LocalBackend, session: Session, batches: Batches, cache_types: CacheTypes, file_bytes: int
) -> Usage:
    """Measure the memory of a model and a session; compiles the prefill of one chunk, if it is not compiled yet.

    file_bytes: bytes of the tensors in the model file.
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
        cache=cache_bytes(config, session.capacity, cache_types),
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
    """The most bytes of memory that this process had at a time."""
    if sys.platform == "linux":  # getrusage may tell the peak of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset
    import resource  # not there on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
