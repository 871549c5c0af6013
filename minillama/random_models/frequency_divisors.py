"""Divisors of RoPE's frequencies, which files hold in rope_freqs.weight."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class RopeFactors(Protocol):
    """A rule for the divisors."""

    def values(self, rotating: int, base: float) -> np.ndarray:
        """Divisors of the frequencies of `rotating` channels, float32 [rotating / 2]."""


@dataclass(frozen=True)
class StretchedLowFrequencies:
    """Llama 3's scaling of low frequencies to a longer context."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int

    def values(self, rotating: int, base: float) -> np.ndarray:
        """1 for high frequencies, `factor` for low ones, and between them in the middle."""
        wavelengths = 2 * math.pi * base ** (np.arange(0, rotating, 2) / rotating)
        rotations = self.original_context / wavelengths
        smooth = (rotations - self.low_frequency_factor) / (self.high_frequency_factor - self.low_frequency_factor)
        between = 1 / ((1 - smooth) / self.factor + smooth)
        stretched = np.where(rotations < self.low_frequency_factor, self.factor, between)
        return np.where(rotations > self.high_frequency_factor, 1.0, stretched).astype(np.float32)


@dataclass(frozen=True)
class FirstPairsRotate:
    """Gemma 4's layers without a window: only this share of the pairs rotates."""

    share: float

    def values(self, rotating: int, base: float) -> np.ndarray:
        """1 for pairs that rotate, and 1e30 for others, which stops them."""
        pairs = rotating // 2
        return np.where(np.arange(pairs) < self.share * pairs, 1.0, 1e30).astype(np.float32)
