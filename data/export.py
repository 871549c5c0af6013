"""Write trained weights to GGUF files.

python data/export.py          # from the last checkpoint in data/training
"""

import argparse
import os
from pathlib import Path

import corpus
import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType, TokenType
from network import Shape, Weights
from tokenizers import Tokenizer

HERE = Path(__file__).parent
FORMATS = {"q8_0": (Type.Q8_0, LlamaFileType.MOSTLY_Q8_0), "f16": (Type.F16, LlamaFileType.MOSTLY_F16)}


def describe_model(writer: gguf.GGUFWriter, parameters: int, file_type: LlamaFileType) -> None:
    """Write the general metadata: name, author, licence, size."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("minillama storyteller")
    writer.add_basename("storyteller")
    writer.add_author("the minillama authors")
    writer.add_version("1.0")
    writer.add_description(
        "A tiny Llama that tells short stories in simple English, to be studied rather than believed."
    )
    writer.add_license("mit")
    writer.add_languages(["en"])
    writer.add_tags(["text-generation", "stories", "education"])
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def describe_network(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write the dimensions of the network."""
    writer.add_block_count(shape.block_count)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.embedding_length)
    writer.add_feed_forward_length(shape.feed_forward_length)
    writer.add_head_count(shape.head_count)
    writer.add_head_count_kv(shape.head_count_kv)
    writer.add_key_length(shape.head_length)
    writer.add_value_length(shape.head_length)
    writer.add_rope_dimension_count(shape.head_length)
    writer.add_rope_freq_base(shape.rope_freq_base)
    writer.add_layer_norm_rms_eps(shape.layer_norm_rms_epsilon)
    writer.add_vocab_size(shape.vocabulary)


def describe_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Write tokens, merges, special tokens and the chat template."""
    tokens, merges = corpus.tokens_and_merges(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in corpus.SPECIAL else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(corpus.BEGIN))
    writer.add_eos_token_id(tokens.index(corpus.END))
    writer.add_eot_token_id(tokens.index(corpus.END_OF_TURN))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(corpus.TEMPLATE)


def export(weights: Weights, shape: Shape, tokenizer: Tokenizer, path: Path, label: str) -> None:
    """Write one file in the format of `label`, atomically; norms stay float32."""
    matrix, file_type = FORMATS[label]
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    describe_model(writer, sum(int(np.size(weight)) for weight in weights.values()), file_type)
    describe_network(writer, shape)
    describe_vocabulary(writer, tokenizer)
    for name, weight in weights.items():
        array = np.asarray(weight, np.float32)
        kind = Type.F32 if array.ndim == 1 else matrix
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, path)


def export_all(weights: Weights, shape: Shape, tokenizer: Tokenizer, folder: Path) -> tuple[Path, ...]:
    """Write storyteller-q8_0.gguf and storyteller-f16.gguf into `folder`."""
    paths = []
    for label in FORMATS:
        paths.append(folder / f"storyteller-{label}.gguf")
        export(weights, shape, tokenizer, paths[-1], label)
    return tuple(paths)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write the storyteller's GGUF files from a checkpoint of data/train.py."
    )
    parser.add_argument("--folder", type=Path, default=HERE / "training", help="folder of checkpoint.npz and tokenizer")
    parser.add_argument("--output", type=Path, default=HERE, help="output folder (default: data)")
    options = parser.parse_args()
    with np.load(options.folder / "checkpoint.npz") as arrays:
        weights = {name.removeprefix("weights/"): arrays[name] for name in arrays.files if name.startswith("weights/")}
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    for path in export_all(weights, Shape(), tokenizer, options.output):
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
