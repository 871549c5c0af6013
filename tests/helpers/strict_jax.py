"""Strict JAX and run-time checked shapes, set before JAX is imported; every test process imports this first."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Environment variables, so that processes started by tests are strict as well.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Tests compile much and compute little: LLVM does not optimise, and XLA emits LLVM code of a fusion directly and not by
# way of MLIR. Both save half of the time on a fresh clone. With an empty XLA_FLAGS, XLA compiles as for users.
QUICK_TO_COMPILE = [
    "--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1",
]  # fmt: skip
if version("jaxlib").startswith("0.10."):  # XLA aborts on an unknown flag, and later versions have no such choice
    QUICK_TO_COMPILE.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK_TO_COMPILE))
# Kernels are cached only in folders of the user; a container may run as another one than the owner of the clone.
OWN = ROOT.stat().st_uid in (0, os.geteuid())
CACHE = ROOT / ".pytest_cache" / "jax" if OWN else Path(tempfile.gettempdir(), f"minillama-tests-{os.geteuid()}")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
for name in [name for name in os.environ if name.startswith(("LLAMA_ARG_", "LLAMA_CHAT_"))]:
    del os.environ[name]

from jaxtyping import install_import_hook  # noqa: E402

# The rooms that handle JAX arrays. Each process pays for the checks when it starts. The SIMD language of the kernels
# handles a hundred thousand symbols, and checking them would take minutes.
ROOMS = (
    "gguf", "kernels.weight", "kernels.scaled_weight", "kernels.load_weights", "kernels.decode_blocks",
    "kernels.decode_grids", "kernels.cpu.mapped_weight", "model", "sampling", "parallel", "engine", "measure",
)  # fmt: skip
install_import_hook([f"minillama.{room}" for room in ROOMS], "beartype.beartype")
import minillama  # noqa: E402, F401  (env.prepare() sets the XLA flags here)
