"""Random numbers of the tensors that are no matrices: norms, biases, decays."""

import numpy as np

# Parts of the names of tensors of two axes that are vectors of heads or groups.
_VECTORS = ("ssm_a", "ssm_d", "ssm_norm.weight")


def is_vector(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is no matrix, whatever its axes."""
    return len(shape) == 1 or name.endswith((".bias", *_VECTORS))


def random_vector(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Numbers of a vector, float32: norm weights around 1, small biases, and decays below 0."""
    if name.endswith(".ssm_a"):  # memories decay
        return -rng.uniform(0.05, 2.0, shape).astype(np.float32)
    if name.endswith("ffn_gate_inp_shexp.weight"):  # a matrix of one row
        return rng.normal(0.0, shape[-1] ** -0.5, shape).astype(np.float32)
    centre = 0.0 if name.endswith(".bias") else 1.0
    return rng.normal(centre, 0.1, shape).astype(np.float32)
