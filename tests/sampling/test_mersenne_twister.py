"""std::mt19937 on the device, against numpy's; and the order in which candidates are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillama.sampling.candidates import Candidates
from minillama.sampling.mersenne_twister import MersenneTwister, seed_words
from minillama.sampling.stages.draw import draw


@jax.jit
def numbers(generator: MersenneTwister, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    def one(generator: MersenneTwister, count: jax.Array) -> tuple[MersenneTwister, tuple[jax.Array, jax.Array]]:
        return generator.skip(count), (generator.float32(), generator.float64())

    return jax.lax.scan(one, generator, counts)[1]


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_numbers_are_those_of_mt19937(seed: int) -> None:
    """Also over the end of the 624 words, and where a step draws nothing, one word or two."""
    counts = np.random.default_rng(seed).integers(0, 3, 2000).astype(np.int32)
    single, double = numbers(MersenneTwister(jnp.asarray(seed_words(seed)), jnp.int32(0)), counts)
    words = np.random.RandomState(seed).randint(0, 2**32, 5000, np.uint32)
    first = np.cumsum(counts) - counts
    np.testing.assert_allclose(single, words[first] / 2.0**32, atol=2**-25)
    np.testing.assert_allclose(double, (words[first] + words[first + 1] * 2.0**32) / 2.0**64, atol=2**-25)
    assert max(single.max(), double.max()) < 1


def test_the_largest_words_stay_below_1() -> None:
    words = np.zeros(624, np.uint32)
    words[397] = 0x12DD9BB3  # its last steps make 32 ones of it
    largest = MersenneTwister(jnp.asarray(words), jnp.int32(0)).float32()
    assert 1 - 2**-23 < float(largest) < 1


def test_where_the_list_is_sorted() -> None:
    """Only where a condition holds, by the logits of that moment, and again after another order."""
    logits = jnp.array([1.0, 3.0, 2.0])
    stored = Candidates.from_logits(logits)
    assert [int(draw(stored.sorted_by_logit(jnp.bool_(sort)), jnp.float32(0))) for sort in (False, True)] == [0, 1]
    other = stored.sorted_by(-logits)
    assert int(draw(other, jnp.float32(0))) == 0
    assert int(draw(other.sorted_by_logit(), jnp.float32(0))) == 1
    ranked = stored.top_k(3).sorted_by(-stored.top_k(3).logits)
    assert ranked.ids[draw(ranked, jnp.float32(0))] == 0
    assert ranked.ids[draw(ranked.sorted_by_logit(), jnp.float32(0))] == 1
