"""Hyperparameters from metadata: llama.cpp's defaults, refused values, ignored keys, and the table of the documents."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import VARIANTS, write_tiny
from vocabularies import MERGES, WORDS, bpe_metadata, spm_metadata

from minillama.engine.generation.sampling_defaults import file_defaults, suppressed_tokens
from minillama.errors import FormatError, UnsupportedError
from minillama.gguf import open_gguf
from minillama.model import FAMILIES, read_config
from minillama.model.architectures import RopeStyle
from minillama.model.config import Rope, Scaling
from minillama.model.reading.metadata_keys import WITHOUT_EFFECT
from minillama.model.reading.read_config import config_from_keys, metadata_keys
from minillama.model.rope import apply_rope, frequencies
from minillama.tokenizer import load_chat_template, load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "gguf-keys.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, object]]:
    """Metadata of a tiny model of each family."""
    folder = tmp_path_factory.mktemp("tiny")
    return {
        variant.architecture: dict(open_gguf(write_tiny(folder / f"{name}.gguf", name)).metadata)
        for name, variant in reversed(VARIANTS.items())  # so that the first of each family stays
    }


class TestConfig:
    @pytest.fixture
    def metadata(self, tmp_path: Path) -> dict[str, object]:
        return dict(open_gguf(write_tiny(tmp_path / "m.gguf", "llama")).metadata)

    def test_unknown_architecture_lists_the_nearest(self, metadata: dict[str, object]) -> None:
        with pytest.raises(UnsupportedError, match=r"'mamba' .*supported ones: llama, "):
            read_config(metadata | {"general.architecture": "mamba"}, 300)

    @pytest.mark.parametrize(
        "key", ["block_count", "embedding_length", "attention.head_count", "attention.layer_norm_rms_epsilon"]
    )
    def test_a_missing_key_is_named(self, metadata: dict[str, object], key: str) -> None:
        del metadata[f"llama.{key}"]
        with pytest.raises(FormatError, match=f"llama.{key} is missing"):
            read_config(metadata, 300)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("block_count", 0), ("block_count", "two"), ("embedding_length", -4), ("attention.head_count", True),
            ("attention.head_count_kv", 3), ("rope.freq_base", float("nan")), ("rope.dimension_count", 7),
            ("rope.dimension_count", 1000), ("expert_count", 2**40), ("rope.scaling.type", "spiral"),
            ("attention.head_count", np.array([4, 3])), ("attention.head_count", np.array([4])),
            ("attention.head_count", np.array([4.0, 2.0])), ("attention.head_count_kv", np.array([2, 0])),
            ("attention.head_count_kv", np.array([2, 2**40])), ("attention.head_count_kv", ("2", "2")),
            ("nextn_predict_layers", 99), ("nextn_predict_layers", 2),
            ("rope.freq_base", 0.0), ("rope.scaling.factor", -2.0), ("rope.scale_linear", -2.0),
            ("attention.causal", 1), ("expert_group_count", -1), ("rope.scaling.original_context_length", 0),
            ("block_count", 513), ("embedding_length", np.arange(9000.0)),
        ],
    )  # fmt: skip
    def test_an_impossible_value_is_one_clear_line(self, metadata: dict[str, object], key: str, value: object) -> None:
        with pytest.raises((FormatError, UnsupportedError)) as caught:
            read_config(metadata | {f"llama.{key}": value}, 300)
        assert "\n" not in str(caught.value)
        assert key.split(".")[-1] in str(caught.value) or "heads" in str(caught.value)

    def test_heads_may_differ_from_layer_to_layer(self, metadata: dict[str, object]) -> None:
        """A third value belongs to a layer that predicts later tokens."""
        heads = {"attention.head_count": np.array([4, 8, 1]), "attention.head_count_kv": np.array([2, 1, 1])}
        more = {"block_count": 3, "nextn_predict_layers": 1, **heads}
        config = read_config(metadata | {f"llama.{key}": value for key, value in more.items()}, 300)
        assert [(layer.head_count, layer.head_count_kv) for layer in config.layers] == [(4, 2), (8, 1)]
        assert (config.layers[1].key_length, config.layers[1].scale) == (16, 1 / 4)

    @pytest.mark.parametrize(
        ("groups", "used", "message"),
        [
            (3, 1, "expert_group_count is 3; expected a divisor of the 4 experts"),
            (4, 2, "expert_group_count is 4; expected a divisor of the 4 experts that leaves two or more a group"),
            (2, 0, "expert_group_used_count is 0; expected 1 to 2"), (2, 3, "expert_group_used_count is 3"),
            (2, 1, "expert_group_used_count is 1; expected 1 to 2, with room for 3 experts"),
        ],
    )  # fmt: skip
    def test_impossible_groups_of_experts(
        self, metadata: dict[str, object], groups: int, used: int, message: str
    ) -> None:
        values = {"count": 4, "used_count": 3, "group_count": groups, "group_used_count": used}
        with pytest.raises(FormatError, match=re.escape(message)):
            read_config(metadata | {f"llama.expert_{key}": value for key, value in values.items()}, 300)

    def test_exaone_has_windows_in_64_layers_only(self, files: Mapping[str, dict[str, object]]) -> None:
        """There, only the layers with one rotate; its 30 layers without a window do."""
        given = files["exaone4"] | {"exaone4.attention.sliding_window": 7}
        whole, local = (read_config(given | {"exaone4.block_count": layers}, 300).layers for layers in (30, 64))
        assert {(layer.sliding_window, layer.rope) for layer in whole} == {(0, 0)}
        assert [(layer.sliding_window, layer.rope) for layer in local[:4]] == [(7, 0)] * 3 + [(0, None)]

    def test_one_value_for_all_layers_may_be_an_array(self, metadata: dict[str, object]) -> None:
        config = read_config(metadata | {"llama.attention.head_count_kv": np.array([2, 2], np.int32)}, 300)
        assert config.head_count_kv == 2

    def test_an_impossible_base_of_yarn(self, metadata: dict[str, object]) -> None:
        yarn = metadata | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
        assert read_config(yarn, 300).rope.original_context_length == metadata["llama.context_length"]
        with pytest.raises(FormatError, match=r"llama\.rope.freq_base is 1\.0; expected a number above"):
            read_config(yarn | {"llama.rope.freq_base": 1.0}, 300)

    @pytest.mark.parametrize(
        ("name", "defaults"),
        [
            (
                "gemma2",
                {"attention.sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
            ),
            ("gemma3", {"attention.sliding_window": 0, "rope.freq_base_swa": 10000.0}),
        ],
    )
    def test_defaults_are_those_of_llama_cpp(self, name: str, defaults: dict[str, object], tmp_path: Path) -> None:
        given = dict(open_gguf(write_tiny(tmp_path / "m.gguf", name)).metadata)
        for key in defaults:
            given.pop(f"{name}.{key}", None)
        assert read_config(given, 300) == read_config(given | {f"{name}.{key}": v for key, v in defaults.items()}, 300)

    @pytest.mark.parametrize(
        ("pattern", "windows"),
        [(None, [3, 3]), (2, [3, 0]), (1, [0, 0]), (0, [3, 3]), (np.array([False, True]), [0, 3])],
    )
    def test_layers_with_a_sliding_window(self, pattern: object, windows: list[int], tmp_path: Path) -> None:
        given = dict(open_gguf(write_tiny(tmp_path / "m.gguf", "gemma3")).metadata)
        given |= {"gemma3.block_count": 2, "gemma3.attention.sliding_window": 3, "gemma3.rope.freq_base_swa": 5000.0}
        if pattern is not None:
            given["gemma3.attention.sliding_window_pattern"] = pattern
        config = read_config(given, 300)
        assert [config.layer(layer).sliding_window for layer in range(2)] == windows
        assert (config.rope_local is not None) == any(windows)
        assert config.rope_local is None or config.rope_local.freq_base == 5000.0

    def test_a_pattern_of_too_few_layers(self, tmp_path: Path) -> None:
        given = dict(open_gguf(write_tiny(tmp_path / "m.gguf", "gemma3")).metadata)
        with pytest.raises(FormatError, match=r"sliding_window_pattern has 1 values; expected one for each"):
            read_config(given | {"gemma3.attention.sliding_window_pattern": np.array([True])}, 300)

    def test_every_family_has_a_tiny_model(self) -> None:
        assert {variant.architecture for variant in VARIANTS.values()} == set(FAMILIES)


class TestRope:
    """Against llama.cpp: ggml_rope_ext, with the factors that llama-context.cpp prepares."""

    def test_old_name_of_the_factor(self, files: Mapping[str, dict[str, object]]) -> None:
        def factor(**values: float) -> float:
            given = {f"llama.rope.{name.replace('__', '.')}": value for name, value in values.items()}
            return read_config(files["llama"] | given, 300).rope.factor

        assert factor(scale_linear=4.0) == 4.0 and factor(scale_linear=4.0, scaling__factor=2.0) == 2.0
        assert factor(scale_linear=4.0, scaling__factor=0.0) == 1.0  # the new name counts, and 0 is none

    @pytest.mark.parametrize(("scaling", "speed"), [("none", 1.0), ("linear", 0.25), ("longrope", 0.25)])
    def test_factor_of_every_scaling(self, scaling: str, speed: float) -> None:
        theta, magnitude = frequencies(Rope(8, 10000.0, Scaling(scaling), 4.0, 64, attn_factor=1.5))
        np.testing.assert_allclose(theta, speed * 10000.0 ** (-np.arange(4) / 4), rtol=1e-6)
        assert magnitude == 1.5

    @pytest.mark.parametrize(("factor", "magnitude"), [(4.0, 1 + 0.1 * math.log(4)), (1.0, 1.0), (0.5, 1.0)])
    def test_magnitude_of_yarn(self, factor: float, magnitude: float) -> None:
        found = frequencies(Rope(8, 10000.0, Scaling.YARN, factor, 64, attn_factor=1.5))[1]
        assert found == pytest.approx(1.5 * magnitude)

    def test_local_layers_have_the_factor_of_attention_alone(self, files: Mapping[str, dict[str, object]]) -> None:
        given = {"gemma3.rope.scaling.attn_factor": 1.25, "gemma3.rope.scaling.type": "yarn"}
        local = read_config(files["gemma3"] | given | {"gemma3.rope.scaling.factor": 4.0}, 300).rope_local
        assert local is not None and frequencies(local)[1] == 1.25
        np.testing.assert_allclose(frequencies(local)[0], 10000.0 ** (-np.arange(8) / 8), rtol=1e-6)

    @pytest.mark.parametrize(
        ("name", "sections", "style"),
        [
            ("glm4", None, RopeStyle.INTERLEAVED), ("glm4", np.array([2, 1, 1, 0], np.int32), RopeStyle.HALF),
            ("glm4", np.array([0, 2, 2, 0]), RopeStyle.INTERLEAVED),
            ("chatglm", np.array([2, 1, 1]), RopeStyle.INTERLEAVED),
        ],
    )  # fmt: skip
    def test_sections_of_m_rope(
        self, name: str, sections: object, style: RopeStyle, files: Mapping[str, dict[str, object]]
    ) -> None:
        given = {} if sections is None else {f"{name}.rope.dimension_sections": sections}
        assert read_config(files[name] | given, 300).rope_style is style

    def test_halves_are_permuted_pairs(self) -> None:
        """The converter permutes rows of glm4's queries and keys; the scores then are those without sections."""
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 2, 8)).astype(np.float32))
        angles = np.random.default_rng(1).normal(size=(1, 3, 4)).astype(np.float32)
        cos_sin = jnp.cos(angles), jnp.sin(angles)
        permuted = jnp.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
        pairs, halves = apply_rope(x, cos_sin, RopeStyle.INTERLEAVED), apply_rope(permuted, cos_sin, RopeStyle.HALF)
        np.testing.assert_allclose(halves, np.concatenate([pairs[..., 0::2], pairs[..., 1::2]], axis=-1), rtol=1e-6)

    @pytest.mark.parametrize(
        "sections", [np.array([1.5, 2.0]), "2", np.arange(5), np.array([-1, 1]), np.ones((2, 2), int)]
    )
    def test_impossible_sections(self, sections: object, files: Mapping[str, dict[str, object]]) -> None:
        with pytest.raises(FormatError, match=r"glm4\.rope\.dimension_sections is .*; expected up to four integers"):
            read_config(files["glm4"] | {"glm4.rope.dimension_sections": sections}, 300)


class TestVariants:
    """Values that llama.cpp obeys and that are not supported: refused, not ignored."""

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("attention.causal", False, "attention.causal is false: an embedding model"),
            ("attention.key_length_swa", 32, "attention.key_length_swa is 32, but 16 in layers without a window"),
            ("attention.value_length_swa", 8, "attention.value_length_swa is 8, but 16"),
            ("rope.dimension_count_swa", 8, "rope.dimension_count_swa is 8, but 16"),
        ],
    )
    def test_refused(self, key: str, value: object, message: str, files: Mapping[str, dict[str, object]]) -> None:
        with pytest.raises(UnsupportedError, match=re.escape(message)):
            read_config(files["gemma3"] | {f"gemma3.{key}": value}, 300)

    def test_values_without_an_effect(self, files: Mapping[str, dict[str, object]]) -> None:
        given = {"attention.causal": True, "expert_group_count": 1, "attention.key_length_swa": 16}
        same = {f"gemma3.{key}": value for key, value in given.items()}
        assert read_config(files["gemma3"] | same, 300) == read_config(files["gemma3"], 300)

    def test_value_length_does_not_follow_key_length(self, files: Mapping[str, dict[str, object]]) -> None:
        given = {key: value for key, value in files["llama"].items() if key != "llama.attention.value_length"}
        config = read_config(given | {"llama.attention.key_length": 32}, 300)
        assert (config.key_length, config.value_length) == (32, 64 // 4)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_keys_of_other_families_are_ignored_with_a_word(name: str, files: Mapping[str, dict[str, object]]) -> None:
    config = read_config(files[name], 300)
    for key, value in WITHOUT_EFFECT.items():
        value = files[name].get(f"{name}.{key}", value)
        with_key = files[name] | {f"{name}.{key}": not value if isinstance(value, bool) else type(value)(value + 5)}
        keys = metadata_keys(with_key)
        try:
            found = config_from_keys(keys, 300)
        except FormatError as error:  # the key counts, and needs another one
            assert key in keys.used and "is missing" in str(error)
            continue
        assert (keys.ignored() == [f"{name}.{key}"]) == (found == config), key
    assert metadata_keys(files[name]).used == set()


@pytest.mark.parametrize(
    ("ids", "expected"),
    [(np.array([5, 3, 5, 299, 300, -1], np.int32), [3, 5, 299]), (np.array([], np.int32), []), (None, [])],
)
def test_suppressed_tokens(ids: object, expected: list[int]) -> None:
    assert suppressed_tokens({} if ids is None else {"tokenizer.ggml.suppress_tokens": ids}, 300) == expected


@pytest.mark.parametrize("ids", ["5", 5, np.array([1.0]), ("a",)])
def test_impossible_suppressed_tokens(ids: object) -> None:
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\.suppress_tokens is not a list of token ids"):
        suppressed_tokens({"tokenizer.ggml.suppress_tokens": ids}, 300)


class Recorded(dict):
    """Metadata that record which keys are looked up."""

    def __init__(self, values: Mapping[str, object]) -> None:
        super().__init__(values)
        self.used: set[str] = set()

    def get(self, key: str, default: object = None) -> object:
        self.used.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> object:
        self.used.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.used.add(str(key))
        return super().__contains__(key)


def keys_of_models(folder: Path) -> set[str]:
    """Keys that are looked up for any tiny model."""
    used: set[str] = set()
    for name in VARIANTS:
        keys = metadata_keys(open_gguf(write_tiny(folder / "m.gguf", name)).metadata)
        config_from_keys(keys, 300)
        used |= keys.used
    return used


def keys_of_texts() -> set[str]:
    """Keys of the tokenizers, the chat template and the sampling options."""
    used: set[str] = set()
    for values in (spm_metadata(WORDS), bpe_metadata(MERGES)):
        metadata = Recorded(values | {"tokenizer.chat_template": "{{ messages }}"})
        load_tokenizer(metadata)
        load_chat_template(metadata)
        file_defaults(metadata)
        suppressed_tokens(metadata, 300)
        used |= metadata.used
    return used


def documented(section: str) -> dict[str, str]:
    """Key -> what minillama does with it, from a table of the document."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert text is not None
    rows = [line.strip("| ").split(" | ") for line in text[1].splitlines() if line.startswith("| `")]
    return {key: row[2] for row in rows for key in re.findall("`(.+?)`", row[0])}


def is_read(use: str) -> bool:
    return not use.startswith("not read")


def test_the_document_lists_the_keys_of_a_model(tmp_path: Path) -> None:
    assert {key for key, use in documented("Model").items() if is_read(use)} == keys_of_models(tmp_path)
    listed = re.search(r"These keys change(.*?)YaRN uses", DOCUMENT, re.DOTALL)
    assert listed is not None and set(re.findall("`([a-z_.]+)`", listed[1])) == set(WITHOUT_EFFECT)


def test_the_document_lists_the_families() -> None:
    text = (ROOT / "docs" / "llama-cpp.md").read_text(encoding="utf-8")
    table = re.search(r"^\| architecture \| models \|\n(.*?)^$", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    listed = [name for row in table[1].splitlines()[1:] for name in row.split("|")[1].strip().split(", ")]
    assert sorted(listed) == sorted(FAMILIES)


def test_the_document_lists_the_other_keys() -> None:
    listed = documented("Tokenizer") | documented("File and sampling")
    used = keys_of_texts()
    assert {key for key in used if key not in listed or not is_read(listed[key])} == set()
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "minillama").rglob("*.py"))
    for key, use in listed.items():  # the others are read where a file is opened or shown
        assert is_read(use) == (key in used or f'"{key}"' in sources or f"'{key}'" in sources), key


@pytest.mark.parametrize("numbers", [{"freq_base": 1e-45}, {"factor": 1e-45}, {"freq_base": 3e38}])
def test_frequencies_that_overflow(numbers: dict[str, float]) -> None:
    """Without a warning of numpy; the logits are then not finite, which is an error of its own."""
    theta, _ = frequencies(Rope(64, **{"freq_base": 1e4, "scaling": Scaling.LINEAR, **numbers}))
    assert theta.dtype == np.float32 and theta.shape == (32,)
