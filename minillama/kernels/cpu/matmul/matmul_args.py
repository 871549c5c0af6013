"""The arguments of a matmul kernel, a struct in memory."""

from minillama.kernels.cpu.simd import Struct, Word


class MatmulArgs(Struct):
    """Arguments of y = x Wᵀ with W [N, K] and x [T, K]."""

    weights = Word()  # address of the first row of W
    row_bytes = Word()  # bytes from one row to the next
    width = Word()  # K
    rows = Word()  # N
    tokens = Word()  # T
    source = Word()  # address of the activations, float32 [T, K]; for an embedding look-up int32 row numbers [T]
    x = Word()  # address of the activations in the layout that the kernel multiplies with
    y = Word()  # address of the result, float32 [T, N]
    kernel = Word()  # address of the function that computes some rows
    task_rows = Word()  # rows of a task
