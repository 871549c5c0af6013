"""Families against llama.cpp's logits at every position, however a text reaches the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_processes import Check

import minillama as ml
from minillama.engine.loading.load_params import load_params, unused_tensors
from minillama.engine.session import Session
from minillama.gguf import open_gguf
from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.model import FAMILIES, Cache, Config, Params, empty_cache, read_config
from minillama.model.forward import forward, unembed

# fmt: off
NAMES = (
    "cohere2", "deepseek2-glm47flash", "deepseek2-lite", "deepseek2-lite-legacy", "deepseek2-v3", "ernie4-5",
    "ernie4-5-moe", "exaone4", "exaone4-swa", "gemma", "gemma4-26b-a4b", "gemma4-31b", "gemma4-e2b", "glm4moe",
    "gpt-oss", "gpt-oss-mxfp4", "granite", "granitehybrid", "granitemoe", "hunyuan-dense", "lfm2", "lfm2moe", "minicpm",
    "minicpm-defaults", "minimax-m2", "mistral3", "nemotron-h", "olmo2", "olmo3", "phi2", "qwen2vl", "qwen35",
    "qwen35-mtp", "qwen35moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "seed-oss", "smollm3", "starcoder2",
)
# fmt: on
CTX = 256
EXACT = CacheTypes(CacheType.F32, CacheType.F32)


@dataclass(frozen=True)
class Golden:
    """A model, a text, and the logits [T, V] that llama.cpp computed for it."""

    name: str
    path: Path
    ids: np.ndarray
    logits: np.ndarray

    def check(self, got: np.ndarray, positions: slice = slice(None)) -> None:
        """Compare the logits of some positions, in standard deviations of all."""
        difference = (np.asarray(got) - self.logits[positions]) / self.logits.std()
        if "mxfp4" in self.name:  # llama.cpp rounds activations to 8 bits before these products
            assert np.sqrt((difference**2).mean()) < 2.5e-2
        else:  # llama.cpp reads GELU from a float16 table
            bound = 2e-3 if self.name.startswith(("gemma", "phi2", "starcoder2")) else 1e-4
            assert np.abs(difference).max() < bound


@pytest.fixture(scope="module", params=NAMES)
def golden(reference: Path, request: pytest.FixtureRequest) -> Golden:
    path = reference / "families" / f"{request.param}.gguf"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    if (architecture := open_gguf(path).metadata["general.architecture"]) not in FAMILIES:
        pytest.skip(f"{architecture} is not a family of the engine")
    all_numbers = np.load(path.with_name("golden.npz"))
    ids, logits = (all_numbers[f"{request.param}.{part}"] for part in ("tokens", "logits"))
    return Golden(request.param, path, ids.astype(np.int32), logits)


@pytest.fixture(scope="module")
def model(golden: Golden) -> tuple[Config, Params]:
    file = open_gguf(golden.path)
    config = read_config(file.metadata, file.tensors["token_embd.weight"].shape[0])
    assert not unused_tensors(file, config)
    return config, load_params(file, config, CTX, [jax.devices("cpu")[0]] * (config.block_count + 1))


@partial(jax.jit, static_argnames="config")
def logits_of(params: Params, config: Config, ids: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    hidden, cache = forward(params, config, ids, cache)
    return unembed(params, config, hidden), cache


def in_pieces(model: tuple[Config, Params], ids: np.ndarray, size: int) -> np.ndarray:
    """Logits of texts [B, T], read in pieces of one size."""
    config, params = model
    cache, found = empty_cache(config, CTX, EXACT, batch=len(ids)), []
    for start in range(0, ids.shape[1], size):
        logits, cache = logits_of(params, config, jnp.asarray(ids[:, start : start + size]), cache)
        found.append(np.asarray(logits))
    return np.concatenate(found, axis=1)


def test_whole(golden: Golden, model: tuple[Config, Params]) -> None:
    golden.check(in_pieces(model, golden.ids[None], len(golden.ids))[0])


def test_in_chunks_of_7(golden: Golden, model: tuple[Config, Params]) -> None:
    whole_chunks = len(golden.ids) // 7 * 7
    golden.check(in_pieces(model, golden.ids[None, :whole_chunks], 7)[0], slice(whole_chunks))


def test_token_by_token(golden: Golden, model: tuple[Config, Params]) -> None:
    golden.check(in_pieces(model, golden.ids[None], 1)[0])


def test_together_with_another_text(golden: Golden, model: tuple[Config, Params]) -> None:
    both = np.stack([golden.ids[::-1], golden.ids])
    golden.check(in_pieces(model, both, len(golden.ids))[1])


def load(path: Path, devices: int = 1) -> ml.LLM:
    exact = {"cache_type_k": "f32", "cache_type_v": "f32"}
    return ml.load(path, tensor_parallel=devices, ctx_size=CTX, progress=False, **exact)


def last_logits(session: Session, ids: Sequence[int]) -> np.ndarray:
    """Logits after a text, in a session that may hold its beginning."""
    kept = session.reuse(ids)
    *_, logits = session.prefill(ids[kept:])
    return np.asarray(logits)


def check_going_back(golden: Golden, devices: int = 1) -> None:
    """The session goes back to the end of a common beginning, or before it, and reads the rest."""
    ids, session = golden.ids.tolist(), load(golden.path, devices).session()
    golden.check(last_logits(session, ids[:48]), slice(47, 48))
    last_logits(session, ids[:64] + ids[:32])
    golden.check(last_logits(session, ids), slice(-1, None))
    golden.check(last_logits(session, ids[:72]), slice(71, 72))
    for place in range(72, 76):
        golden.check(np.asarray(session.decode(ids[place])), slice(place, place + 1))
    assert session.reuse(ids[:74]) >= 72  # a recurrent layer goes back to the prompt's end
    golden.check(last_logits(session, ids[:80]), slice(79, 80))


def test_after_another_text_with_the_same_beginning(golden: Golden) -> None:
    check_going_back(golden)


def logits_of_two(path: Path, ids: Sequence[int]) -> np.ndarray:
    return load(path, 2).logits(ids)


def test_on_two_devices(golden: Golden, apart: Check) -> None:
    golden.check(apart(logits_of_two, golden.path, golden.ids.tolist()))


def test_going_back_on_two_devices(golden: Golden, apart: Check) -> None:
    apart(check_going_back, golden, 2)
