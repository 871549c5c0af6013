"""Latent attention of one step with keys and values written out, and from latents alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minillama.array_types import Float
from minillama.lab.llama_numpy import softmax

Absorb = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LatentStep:
    """A query of N heads, and the rows of S tokens.

    A row is a latent of R numbers, then P rotated ones. w_k and w_v make keys and values of each head from a latent.
    """

    q: Float[np.ndarray, "N H"]
    rows: Float[np.ndarray, "S C"]
    w_k: Float[np.ndarray, "N nope R"]
    w_v: Float[np.ndarray, "N V R"]

    @property
    def rank(self) -> int:
        """R: numbers of a latent."""
        return self.w_k.shape[-1]

    def written_out(self) -> Float[np.ndarray, "N V"]:
        """Keys and values of all heads for every token, then usual attention."""
        latents, turning = np.split(self.rows, [self.rank], axis=-1)
        keys = np.einsum("SR,NDR->SND", latents, self.w_k)
        shared = np.broadcast_to(turning[:, None], (*keys.shape[:2], turning.shape[-1]))
        keys = np.concatenate([keys, shared], axis=-1)
        values = np.einsum("SR,NVR->SNV", latents, self.w_v)
        weights = softmax(np.einsum("NH,SNH->NS", self.q, keys) / np.sqrt(self.q.shape[-1]))
        return np.einsum("NS,SNV->NV", weights, values)

    def absorbed(self, absorb: Absorb) -> Float[np.ndarray, "N V"]:
        """Attention to the rows; values are made of the mean latent of each head."""
        weights = softmax(absorb(self.q, self.w_k) @ self.rows.T / np.sqrt(self.q.shape[-1]))
        means = weights @ self.rows[:, : self.rank]
        return np.einsum("NR,NVR->NV", means, self.w_v)

    def numbers_written_out(self) -> int:
        """Numbers of the keys and values of all tokens."""
        heads, values, _ = self.w_v.shape
        return len(self.rows) * heads * (self.q.shape[-1] + values)

    def products(self) -> tuple[int, int]:
        """Multiplications for the scores: with keys written out, and absorbed."""
        (heads, nope, rank), tokens = self.w_k.shape, len(self.rows)
        written = tokens * heads * (nope * rank + self.q.shape[-1])
        return written, heads * nope * rank + tokens * heads * self.rows.shape[-1]


def latent_step(
    seed: int, tokens: int, heads: int = 16, nope: int = 32, turning: int = 16, rank: int = 64
) -> LatentStep:
    """A random step.

    Values have as many numbers as the part of a key that does not rotate.
    """
    random = np.random.default_rng(seed)
    w_k, w_v = random.standard_normal((2, heads, nope, rank)) / np.sqrt(rank)
    return LatentStep(
        random.standard_normal((heads, nope + turning)), random.standard_normal((tokens, rank + turning)), w_k, w_v
    )
