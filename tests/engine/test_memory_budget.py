"""What is said about memory before anything is allocated, and the sizes of batches."""

import gc
import logging
import platform
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.batches import Batches
from minillama.engine.loading.memory_budget import Storage, predict
from minillama.errors import ResourceError
from minillama.gguf import memory_pages
from minillama.gguf.kv_cache_types import CacheTypes, read_cache_types
from minillama.kernels import cpu_kernels_error
from minillama.model import empty_cache
from minillama.model.forward import forward, unembed


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("tiny") / "qwen3.gguf", "qwen3"), progress=False)


@pytest.mark.parametrize("ctx_size", [1024, 16384])
def test_predicted_compute_is_what_xla_sets_aside(llm: ml.LLM, ctx_size: int) -> None:
    """For the largest chunk, whatever the context; the prediction may be too large by half."""
    weights, params_structure = jax.tree.flatten(llm.params)
    stores, cache_structure = jax.tree.flatten(empty_cache(llm.config, ctx_size, CacheTypes()))

    def read(weights: list[jax.Array], stores: list[jax.Array], ids: jax.Array) -> tuple[jax.Array, object]:
        params = jax.tree.unflatten(params_structure, weights)
        hidden, cache = forward(params, llm.config, ids, jax.tree.unflatten(cache_structure, stores))
        return unembed(params, llm.config, hidden[0, -1]), cache

    compiled = jax.jit(read, donate_argnums=1).lower(weights, stores, jnp.zeros((1, 512), jnp.int32)).compile()
    device = jax.devices("cpu")[0]
    predicted = predict(llm.config, 0, ctx_size, CacheTypes(), Batches(2048, 512), device).compute
    assert compiled.memory_analysis().temp_size_in_bytes <= predicted
    assert predicted <= 1.5 * compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("keys", "values", "per_pair"),
    [("f32", "f32", 8), ("f16", "f32", 6), ("q8_0", "bf16", 3.0625), ("q4_0", "q5_1", 1.3125)],
)
def test_the_cache_in_the_sum_is_of_the_types_asked_for(llm: ml.LLM, keys: str, values: str, per_pair: float) -> None:
    """Two layers with two key/value heads of 32."""
    opened = ml.load(llm.path, ctx_size=256, cache_type_k=keys, cache_type_v=values, progress=False)
    assert opened.cache_types == read_cache_types(keys, values)
    assert opened.memory.cache == 2 * 2 * 32 * 256 * per_pair
    held = jax.tree.leaves(opened.session()._cache)
    assert sum(leaf.nbytes for leaf in held) == opened.memory.cache + 4  # and the length


def test_impossible_cache_types_are_refused_before_anything_is_read(llm: ml.LLM, tmp_path: Path) -> None:
    with pytest.raises(ml.OptionError, match=r"cache_type_k is 'f64'; supported: f32, f16, bf16, q8_0"):
        ml.load(tmp_path / "absent.gguf", cache_type_k="f64", progress=False)
    with pytest.raises(ml.OptionError, match="cache_type_v is q8_0, in blocks of 32 values"):
        ml.load(write_tiny(tmp_path / "m.gguf", "llama"), cache_type_v="q8_0", progress=False)


def locked_bytes() -> int:
    """What Linux says of this process, without what nobody holds any more."""
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck"))
    return 1024 * int(line.split()[1])


class TestWeights:
    @pytest.mark.skipif(cpu_kernels_error() is not None, reason="the processor's own kernels do not run here")
    @pytest.mark.parametrize(("use_mmap", "storage"), [(True, Storage.MAPPED), (False, Storage.READ)])
    def test_they_are_in_memory_once(self, llm: ml.LLM, use_mmap: bool, storage: Storage) -> None:
        opened = ml.load(llm.path, use_mmap=use_mmap, progress=False)
        assert (opened.memory.storage, opened.memory.locked) == (storage, False)
        (whole,) = opened.file.mapped.values()
        matrix = np.asarray(opened.params.blocks[0].ffn_down.weight.memory)
        assert np.shares_memory(matrix, whole)
        assert np.array_equal(opened.logits([5, 6, 7]), llm.logits([5, 6, 7]))

    def test_a_device_with_its_own_copy_has_no_second_one_read(
        self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("minillama.kernels.load_weights.reads_in_place", lambda device, kind: False)
        monkeypatch.setattr("minillama.engine.load.reads_in_place", lambda device: False)
        opened = ml.load(llm.path, use_mmap=False, use_mlock=True, progress=False)
        assert (opened.memory.storage, opened.memory.locked) == (Storage.COPIED, False)
        assert caplog.messages == ["use_mlock has no effect: the weights are copied to the device"]
        (whole,) = opened.file.mapped.values()
        assert not whole.flags.owndata and type(whole.base).__name__ in ("mmap", "memoryview")

    @pytest.mark.skipif(
        sys.platform != "linux" or cpu_kernels_error() is not None, reason="needs /proc and the kernels"
    )
    @pytest.mark.parametrize("use_mmap", [True, False])
    def test_locked(self, llm: ml.LLM, use_mmap: bool, caplog: pytest.LogCaptureFixture) -> None:
        before = locked_bytes()
        with caplog.at_level(logging.INFO, "minillama"):
            opened = ml.load(llm.path, use_mmap=use_mmap, use_mlock=True, progress=False)
        if not opened.memory.locked:
            pytest.skip(caplog.messages[0])
        assert locked_bytes() - before >= opened.file.nbytes
        assert opened.memory.storage.value + ", locked" in caplog.messages[-1]

    def test_a_limit_is_said_in_one_line_and_loading_goes_on(
        self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(memory_pages, "_call", lambda name, address, size, *numbers: 12 if name == "mlock" else 0)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(memory_pages, "_limit", lambda: "8 MiB")
        monkeypatch.setattr("minillama.engine.load.reads_in_place", lambda device: True)
        opened = ml.load(llm.path, use_mlock=True, progress=False)
        assert not opened.memory.locked and opened.generate([5], n=1, temp=0).tokens
        (message,) = caplog.messages
        assert message.startswith("cannot lock 0 MiB of weights in memory: ")
        assert "RLIMIT_MEMLOCK is 8 MiB; raise it with `ulimit -l unlimited`" in message

    def test_systems_that_cannot_lock_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "win32")
        with pytest.raises(ResourceError, match="cannot lock 1 MiB of weights in memory: not supported on "):
            memory_pages.lock_pages([np.zeros(1 << 20, np.uint8)])


def mapped_bytes(path: Path) -> int:
    """What Linux says is in memory of this process's mapping of a file."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = [next(line for line in lines if line.startswith("Rss:")) for line in lines if line.endswith(str(path))]
    return sum(1024 * int(line.split()[1]) for line in found)


class TestPopulate:
    SIZE = 3 * (64 << 20) // 2 + 5  # a stretch, and half of one

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "weights"
        path.write_bytes(bytes(self.SIZE))
        return path

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and Linux's madvise")
    def test_all_pages_are_there_afterwards(self, file: Path) -> None:
        if tuple(map(int, platform.release().split(".")[:2])) < (5, 14):
            pytest.skip(f"Linux {platform.release()} does not know how")
        whole = np.memmap(file, np.uint8, mode="r")
        assert mapped_bytes(file) < self.SIZE / 2
        assert list(memory_pages.prefault_pages(whole)) == [64 << 20, self.SIZE - (64 << 20)]
        assert mapped_bytes(file) >= self.SIZE

    def test_where_the_system_cannot_the_bytes_count_all_the_same(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory_pages, "_call", lambda *arguments: 22)
        for system in ("linux", "darwin", "win32"):
            monkeypatch.setattr(sys, "platform", system)
            assert sum(memory_pages.prefault_pages(np.memmap(file, np.uint8, mode="r"))) == self.SIZE

    def test_a_thread_does_it_for_all_files(self, file: Path) -> None:
        wholes = [np.memmap(file, np.uint8, mode="r"), np.zeros(5, np.uint8)]
        assert list(memory_pages.start_prefault(wholes)) == [64 << 20, self.SIZE - (64 << 20), 5]

    @pytest.mark.skipif(cpu_kernels_error() is not None, reason="the processor's own kernels do not run here")
    def test_loading_does_it_and_shows_how_far_it_is(self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        monkeypatch.setattr(memory_pages, "_call", lambda name, address, size, *numbers: seen.append(size) or 0)
        ml.load(llm.path, progress=False)
        assert sum(seen) == (llm.path.stat().st_size if sys.platform in ("linux", "darwin") else 0)


class TestBatches:
    @pytest.mark.parametrize(
        ("asked", "ctx_size", "given"),
        [
            ((2048, 512), 4096, (2048, 512)), ((2048, 512), 256, (256, 256)), ((64, 512), 4096, (64, 64)),
            ((100, 7), 4096, (100, 7)),
        ],
    )  # fmt: skip
    def test_they_are_cut_as_in_llama_cpp(self, asked: tuple[int, int], ctx_size: int, given: tuple[int, int]) -> None:
        assert Batches(*asked).within(ctx_size) == Batches(*given)

    def test_a_prompt_is_computed_in_chunks_of_ubatch_size_and_handed_over_in_batches(
        self, llm: ml.LLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from minillama.engine.backends.local import LocalBackend
        from minillama.engine.backends.programs import text_programs

        opened = ml.load(llm.path, batch_size=50, ubatch_size=20, progress=False)
        shapes, call = [], LocalBackend.call

        def watched(self, program, *args):
            if program is text_programs.read:
                _, ids, n_valid = args
                shapes.append((ids.shape[1], int(n_valid[0])))
            return call(self, program, *args)

        monkeypatch.setattr(LocalBackend, "call", watched)
        opened.generate([5] * 113, n=1, temp=0)
        # tokens computed, and those that count: 50 + 50 + 12; the last token is a step
        assert shapes == [(20, 20), (20, 20), (16, 10), (20, 20), (20, 20), (16, 10), (16, 12)]
