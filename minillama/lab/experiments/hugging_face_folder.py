"""The storyteller as a Hugging Face folder, the input of `minillama convert`."""

import json
from collections.abc import Mapping
from functools import cache as once
from pathlib import Path

import numpy as np
from gguf.constants import TokenType
from safetensors.numpy import save

from minillama.atomic_file import atomic_write
from minillama.convert.vocab.known_pretokenizer import EXPRESSIONS
from minillama.convert.weights.tensor_names import LAYER, TOP
from minillama.engine.loading.model_files import data_file
from minillama.gguf import GGUF, open_gguf
from minillama.gguf.reader import dequantize
from minillama.lab.experiments.quantised_storytellers import temporary_folder

FOLDER = "storyteller-hf"
# GGUF's names -> paths in transformers' models: of the names that `convert` knows, the first.
MODEL_PATHS, LAYER_PATHS = ({name: path for path, name in reversed(table.items())} for table in (TOP, LAYER))


@once
def storyteller_folder() -> Path:
    """The storyteller as transformers would write it, made once per process."""
    file, folder = open_gguf(data_file("storyteller-f16.gguf")), temporary_folder() / "convert" / FOLDER
    folder.mkdir(parents=True)
    config = config_json(file.metadata)
    _write(folder / "config.json", _text(config))
    _write(folder / "model.safetensors", save(_weights(file, config), {"format": "pt"}))
    _write(folder / "tokenizer.json", _text(_tokenizer(file.metadata)))
    _write(folder / "tokenizer_config.json", _text(_tokenizer_config(file.metadata)))
    return folder


def hugging_face_name(name: str) -> str:
    """The name in the folder of a tensor of the GGUF file."""
    stem, _, ending = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"model.{MODEL_PATHS[stem]}.{ending}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{LAYER_PATHS[part]}.{ending}"


def config_json(metadata: Mapping[str, object]) -> dict[str, object]:
    """The content of config.json."""
    sizes = {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "vocab_size": "vocab_size",
        "max_position_embeddings": "context_length",
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: metadata[f"llama.{key}"] for name, key in sizes.items()},
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float16",
    }


def _weights(file: GGUF, config: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The tensors: matrices in 16 bits, norms in 32, as in the GGUF file."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = {}
    for name, tensor in file.tensors.items():
        values = dequantize(tensor)
        if count := heads.get(name.split(".")[-2]):
            values = _halves(values, int(str(count)))
        found[hugging_face_name(name)] = values if values.ndim == 1 else values.astype(np.float16)
    return found


def _halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from pairs, which rotate together, to (first halves, second halves)."""
    pairs = values.reshape(heads, -1, 2, values.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))


def _tokenizer(metadata: Mapping[str, object]) -> dict[str, object]:
    """The content of tokenizer.json: byte pairs, and the first token before each text."""
    tokens, types = (list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "token_type"))  # type: ignore[call-overload]
    first = tokens[metadata["tokenizer.ggml.bos_token_id"]]  # type: ignore[index]
    looks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    before = {"SpecialToken": {"id": first, "type_id": 0}}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    (expression,) = next(known for known, name in EXPRESSIONS.items() if name == metadata["tokenizer.ggml.pre"])
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": token, **looks}
            for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == TokenType.CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [before, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [before, *({"Sequence": {"id": name, "type_id": 0}} for name in "AB")],
            "special_tokens": {first: {"id": first, "ids": [tokens.index(first)], "tokens": [first]}},
        },
        "decoder": level,
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": list(metadata["tokenizer.ggml.merges"]),  # type: ignore[call-overload]
        },
    }


def _tokenizer_config(metadata: Mapping[str, object]) -> dict[str, object]:
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],  # type: ignore[index]
        "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],  # type: ignore[index]
        "chat_template": metadata["tokenizer.chat_template"],
    }


def _text(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
