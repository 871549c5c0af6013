"""What a kernel is told about one matrix of a call: ten numbers in memory."""

from minillama.kernels.cpu.simd import I64, Value, load

WORDS = 10


class MatmulArgs:
    """The numbers by name, each an I64; addresses are of bytes."""

    def __init__(self, address: Value) -> None:
        self.address = address

    @property
    def weights(self) -> Value:
        """Address of the first row."""
        return self._word(0)

    @property
    def row_bytes(self) -> Value:
        """From one row to the next."""
        return self._word(1)

    @property
    def width(self) -> Value:
        """K, the weights of a row."""
        return self._word(2)

    @property
    def rows(self) -> Value:
        """N."""
        return self._word(3)

    @property
    def tokens(self) -> Value:
        """T."""
        return self._word(4)

    @property
    def source(self) -> Value:
        """Address of the activations, float32 [T, K]."""
        return self._word(5)

    @property
    def x(self) -> Value:
        """Address of the activations in the form that this matrix' type multiplies with."""
        return self._word(6)

    @property
    def y(self) -> Value:
        """Address of the result, float32 [T, N]."""
        return self._word(7)

    @property
    def kernel(self) -> Value:
        """Address of the function that computes some rows."""
        return self._word(8)

    @property
    def task_rows(self) -> Value:
        """Rows that a thread takes at a time."""
        return self._word(9)

    def _word(self, index: int) -> Value:
        return load(I64, 1, self.address + 8 * index, align=8)
