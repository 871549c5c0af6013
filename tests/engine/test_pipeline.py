"""Stages of a pipeline: a stage may have only the output head, and the other processes keep placeholders."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.backends.pipeline import PipelineBackend, Stage
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import Kind
from minillama.engine.backends.remote_calls.remote_arguments import HANDLES
from minillama.engine.loading.layer_placement import Placement
from minillama.model import Cache
from minillama.model.forward import run_layers
from minillama.sampling import Sampling
from minillama.sampling.mersenne_twister import seed_words


def test_a_stage_without_layers_keeps_the_last_valid_token(tmp_path: Path) -> None:
    config = ml.load(write_tiny(tmp_path / "m.gguf", "llama"), progress=False).config
    x = jax.random.normal(jax.random.key(0), (2, 5, config.embedding_length))
    empty = Cache((), jnp.zeros(2, jnp.int32), 8)
    for rows in (slice(0, 1), slice(0, 2)):
        n_valid = jnp.array([4, 2], jnp.int32)[rows]
        out, _ = run_layers((), config, x[rows], Cache((), empty.length[rows], 8), None, valid=n_valid, last_only=True)
        expected = [x[row, count - 1] for row, count in enumerate(n_valid.tolist())]
        np.testing.assert_array_equal(np.asarray(out[:, 0]), np.asarray(expected))


class FirstOfTwo:
    """The transport of a first process, whose successor answers with what it is given."""

    is_first, is_last = True, False

    def send_next(self, x: jax.Array, source: int) -> jax.Array:
        return x

    def broadcast(self, tree: object) -> object:
        return tree


def test_what_a_process_without_the_head_stores_is_accepted_back(tmp_path: Path) -> None:
    """A worker checks the kind of every value that a leader names, also of placeholders."""
    whole = ml.load(write_tiny(tmp_path / "m.gguf", "llama"), progress=False, ctx_size=256)
    device, layers = whole.local.device, whole.config.block_count
    placement = Placement((device,) * (layers + 1))
    stages = (Stage(placement.segments()[0]), Stage(None))
    backend = PipelineBackend(whole.params, whole.config, stages, FirstOfTwo(), placement, (device,))
    chain, cache = backend.chain(Sampling()), backend.new_cache(64, whole.cache_types)
    one = np.ones(1, np.int32)
    logits, cache = backend.call(text_programs.prefill, cache, np.zeros((1, 16), np.int32), 5 * one)
    recent = np.zeros((1, chain.window), np.int32)
    state = backend.call(text_programs.start, chain, seed_words(1)[None], recent, one)
    for n_draft, ids in ((None, np.zeros((1, 1), np.int32)), (one, np.zeros((1, 2), np.int32))):
        draft, state, cache = backend.call(text_programs.generate, cache, chain, state, ids, n_draft, None)
        assert draft.tokens.shape == ids.shape
        assert isinstance(cache, Cache)
        for kind, value in ((Kind.STATE, state), (Kind.LOGITS, logits)):
            assert isinstance(value, HANDLES[kind]), kind
