"""Choice of the instruction set, fallback to XLA, and whole models on every instruction set."""

import subprocess
import sys

import jax
import pytest
from gguf import GGMLQuantizationType as Type
from test_simd import ISAS
from test_weight import random_bytes

from minillama.errors import OptionError
from minillama.gguf import Tensor
from minillama.kernels import Files, Portable, cpu_available, load_weight
from minillama.kernels.cpu.runtime import registry
from minillama.kernels.cpu.runtime.kernel_roles import TYPES, Role, kernel_number
from minillama.kernels.cpu.simd import Isa

DEVICE = jax.devices("cpu")[0]


class TestChoice:
    def test_the_environment_chooses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for word in ("avx2", "generic"):
            monkeypatch.setenv("MINILLAMA_CPU_KERNELS", word)
            registry.chosen_isa.cache_clear()
            assert registry.chosen_isa().value == word
        registry.chosen_isa.cache_clear()

    @pytest.mark.parametrize(
        ("features", "found"),
        [
            ("avx2 fma f16c", "avx2 generic"),
            ("avx2 fma f16c avxvnni", "avx-vnni avx2 generic"),
            ("avx2 fma f16c avx512f avx512bw avx512vl avx512vnni", "avx512 avx2 generic"),
            ("avx2 avxvnni", "generic"),
        ],
    )
    def test_processors_have_these(self, monkeypatch: pytest.MonkeyPatch, features: str, found: str) -> None:
        monkeypatch.setattr(registry.binding, "get_host_cpu_features", lambda: dict.fromkeys(features.split(), True))
        assert [isa.value for isa in registry.available_isas()] == found.split()

    def test_a_missing_instruction_set_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "available_isas", lambda: (Isa.GENERIC,))
        monkeypatch.setenv("MINILLAMA_CPU_KERNELS", "avx2")
        registry.chosen_isa.cache_clear()
        with pytest.raises(OptionError, match="MINILLAMA_CPU_KERNELS is avx2, which this processor lacks; it has gen"):
            registry.chosen_isa()
        registry.chosen_isa.cache_clear()

    def test_without_llvm_xla_multiplies_with_a_warning(self, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
        cpu_available.cpu_kernels_error.cache_clear()
        monkeypatch.setitem(sys.modules, "minillama.kernels.cpu.runtime.registry", None)
        assert (
            "ImportError" in cpu_available.cpu_kernels_error()
            or "ModuleNotFoundError" in cpu_available.cpu_kernels_error()
        )
        cpu_available.cpu_kernels_error()
        assert len([r for r in caplog.records if "XLA multiplies" in r.message]) == 1
        cpu_available.cpu_kernels_error.cache_clear()

    def test_a_type_whose_kernels_cannot_be_built_is_multiplied_by_xla(self, monkeypatch, tmp_path) -> None:
        def fail(kind: Type) -> None:
            raise RuntimeError("LLVM ERROR: no such instruction")

        cpu_available.type_kernels_error.cache_clear()
        monkeypatch.setattr(registry, "load_kernels", fail)
        raw = random_bytes(Type.Q4_0, 4, 64)
        (tmp_path / "model.gguf").write_bytes(raw.tobytes())
        tensor = Tensor("w", (4, 64), Type.Q4_0, raw, 0, tmp_path / "model.gguf")
        assert isinstance(load_weight(tensor, Files({tensor.file: raw.reshape(-1)}), DEVICE), Portable)
        cpu_available.type_kernels_error.cache_clear()

    def test_kernel_numbers_differ(self) -> None:
        numbers = [kernel_number(kind, role) for kind in TYPES for role in Role]
        assert len(set(numbers)) == len(numbers)
        assert max(numbers) < registry.ffi_handlers.KERNEL_COUNT


@pytest.mark.parametrize("word", [*(isa.value for isa in ISAS[1:]), "off"])
def test_a_whole_model_on_other_kernels(word: str, builtin_model) -> None:
    """In a new process, as the instruction set is chosen once."""
    code = (
        "import minillama as ml; llm = ml.load(progress=False);"
        "print(llm.generate('Once upon a time', n=24, temp=0).text)"
    )
    environment = {**__import__("os").environ, "MINILLAMA_CPU_KERNELS": word}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    import minillama as ml

    assert result.stdout == ml.load(progress=False).generate("Once upon a time", n=24, temp=0).text + "\n"
