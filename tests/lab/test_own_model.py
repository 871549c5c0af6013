"""A learner's own model in the labs: its file, counts that fit it, and the line of each lab."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minillama as ml
from minillama.engine.llm import LLM
from minillama.engine.loading.model_files import DEFAULT_MODEL, data_file
from minillama.gguf import open_gguf
from minillama.lab import own_model
from minillama.lab.experiments import quantised_storytellers
from minillama.lab.experiments.quantised_storytellers import distance, log_softmax, quantised, temporary_folder
from minillama.lab.llama_numpy import is_plain_llama
from minillama.lab.own_model import ChosenModelError, lab_model, model_file, model_name, scaled, token_seconds
from minillama.measure.limits.work_per_token import weight_bytes
from minillama.random_models.known_shapes import shape_named
from minillama.random_models.model_writer import write_random_model

SOURCES = sorted((Path(__file__).parents[2] / "labs" / "src").glob("*.py"))
LINE = "MODEL = None  # or the path of your own GGUF file\n"
LOADS = re.compile(r"\b(ml\.load|lab_model|model_file|load_quantised|load_heavy|own_files)\(")
BUILT_IN = re.compile(r"ml\.load\((?:\)|progress|ctx_size|cache_type|tensor_parallel)|data_file\(|ml\.load\(big_model")


@pytest.fixture(scope="module")
def storyteller() -> LLM:
    return lab_model(None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with another vocabulary and another family than the storyteller's."""
    path = tmp_path_factory.mktemp("own") / "tiny-qwen2.gguf"
    write_random_model(path, shape_named("tiny-qwen2"), "Q8_0")
    return path


class TestFile:
    def test_none_is_the_storyteller(self) -> None:
        assert model_file(None) == data_file(DEFAULT_MODEL)

    def test_none_is_another_file_of_the_lab(self, tmp_path: Path) -> None:
        assert model_file(None, lambda: tmp_path / "big.gguf") == tmp_path / "big.gguf"

    def test_own_file_comes_first(self, tiny: Path) -> None:
        assert model_file(str(tiny), lambda: pytest.fail("not needed")) == tiny

    def test_name_of_a_built_in_model(self) -> None:
        assert model_file("storyteller-f16") == data_file("storyteller-f16.gguf")

    @pytest.mark.parametrize("wrong", [7, "", "  ", ["model.gguf"]])
    def test_no_path(self, wrong: object) -> None:
        with pytest.raises(ChosenModelError, match=r"^MODEL is .*; write the path of a GGUF file in quotes, or None$"):
            model_file(wrong)  # type: ignore[arg-type]

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "missing.gguf"
        with pytest.raises(ChosenModelError, match=r"missing\.gguf', and there is no such file .*correct it"):
            model_file(path)

    def test_folder_with_a_file(self, tiny: Path) -> None:
        with pytest.raises(ChosenModelError, match=r"a folder; name a file in it, such as .*tiny-qwen2\.gguf$"):
            model_file(tiny.parent)

    def test_folder_of_a_published_model(self, tmp_path: Path) -> None:
        with pytest.raises(ChosenModelError, match=r"a folder without a GGUF file; make one with: minillama convert"):
            model_file(tmp_path)

    def test_not_a_gguf_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(b"PK\3\4 and more")
        with pytest.raises(
            ChosenModelError, match=r"not a GGUF file: it begins with .*name a file that ends in \.gguf"
        ):
            model_file(path)

    def test_damaged_file(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.gguf"
        path.write_bytes(data_file(DEFAULT_MODEL).read_bytes()[:5000])
        with pytest.raises(ChosenModelError, match=r"^MODEL is .*cut\.gguf.*: ") as caught:
            lab_model(path)
        assert caught.value._render_traceback_() == [str(caught.value)], "IPython shows one line"

    def test_errors_of_the_built_in_model_stay(self) -> None:
        with pytest.raises(ml.errors.OptionError, match="ctx_size"):
            lab_model(None, ctx_size=-5)


def test_names() -> None:
    assert model_name(None) == "storyteller" and model_name(None, "random") == "random"
    assert model_name("/models/small.gguf") == "small"
    assert len(model_name("/models/" + 60 * "x" + ".gguf")) == 24


class TestScaled:
    """The estimate of a token, and the counts that follow from it."""

    def test_models_of_the_labs_keep_every_count(self, storyteller: LLM) -> None:
        assert [scaled(count, storyteller, tokens=1e9, seconds=1e-9) for count in (1, 9, 4700)] == [1, 9, 4700]

    def test_formula(self, storyteller: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(own_model, "weight_bytes", lambda *_: 0.5e9)
        assert token_seconds(storyteller) == pytest.approx(1 / 16)
        assert scaled(200, storyteller, tokens=32, seconds=60) == 30
        assert scaled(200, storyteller, tokens=32, rows=2, seconds=60) == 60
        assert scaled(200, storyteller, tokens=32, rows=8, seconds=60) == 200, "never more than asked for"
        assert token_seconds(storyteller, rows=512) == token_seconds(storyteller, rows=8)
        assert scaled(200, storyteller, tokens=1e6, least=4) == 4

    def test_border(self, storyteller: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        for size, count in ((80e6, 50), (80e6 + 1, 1)):
            monkeypatch.setattr(own_model, "weight_bytes", lambda *_, size=size: size)
            assert scaled(50, storyteller, tokens=1e6) == count

    def test_a_real_file(self, tiny: Path) -> None:
        llm = lab_model(tiny)
        assert token_seconds(llm) == weight_bytes(llm.file, llm.config) / 8e9


class TestTypes:
    """Other types of a learner's file."""

    def test_a_file_of_the_type_stays(self, tiny: Path) -> None:
        assert quantised("Q8_0", str(tiny)) == tiny

    def test_rounded_again(self, tiny: Path) -> None:
        path = quantised("F16", str(tiny))
        assert path.parent == temporary_folder() and "storyteller" not in path.name
        before, after = (open_gguf(each).tensors["blk.0.ffn_up.weight"] for each in (tiny, path))
        assert (before.type.name, after.type.name) == ("Q8_0", "F16") and before.shape == after.shape

    def test_parts_of_the_divergence_are_those_of_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        base, other = np.random.default_rng(1).normal(size=(2, 70, 50)).astype("float32")
        monkeypatch.setattr(quantised_storytellers, "ROWS", 7)
        ours, theirs = log_softmax(other), log_softmax(base)
        kld = ((ours * 0 + theirs) - ours) * (2.718281828459045**theirs)
        assert distance(base, other).kld == pytest.approx(kld.sum(-1).mean(), rel=1e-12)
        assert distance(base, other).same_top == (ours.argmax(-1) == theirs.argmax(-1)).mean()


def test_plain_llamas(storyteller: LLM, tiny: Path) -> None:
    assert is_plain_llama(storyteller.file) and not is_plain_llama(open_gguf(tiny))
    assert not is_plain_llama(storyteller.file, most=1_000_000)
    longer = replace(storyteller.file, metadata={**storyteller.file.metadata, "llama.rope.scaling.type": "yarn"})
    assert not is_plain_llama(longer)


class TestSources:
    """Each lab that loads a model says where a learner's own one goes."""

    @pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])
    def test_line(self, source: Path) -> None:
        cells = source.read_text(encoding="utf-8").split("\n# %%")[1:]
        cells = [cell for cell in cells if "[markdown]" not in cell[:12]]
        loads = LOADS.search("".join(cells)) is not None
        assert loads == (not source.stem.startswith("17")), "lab 17 multiplies matrices of its own"
        assert [number for number, cell in enumerate(cells) if LINE in cell] == ([0] if loads else [])

    @pytest.mark.parametrize("source", SOURCES, ids=[path.stem for path in SOURCES])
    def test_no_other_way_to_the_built_in_model(self, source: Path) -> None:
        lines = source.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if not line.startswith("#") and BUILT_IN.search(line)]
        assert not found, "use lab_model(MODEL), or lab_model(None) with a sentence that says why"
