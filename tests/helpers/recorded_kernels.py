"""The kernels that recorded numbers and texts come from."""

from minillama.kernels.cpu_available import instruction_set

# They round activations to 8 bits; tiles (AMX) round them less.
RECORDED_KERNELS = "avx512" if instruction_set() == "amx" else "auto"
