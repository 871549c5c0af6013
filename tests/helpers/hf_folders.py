"""Small Hugging Face folders with reproducible weights, and digests of GGUF files.

`tests/convert/folders.json` has a row for each: config.json, the kind of tokenizer, and the shapes of the tensors, as
transformers writes them for a tiny model of the class. `digests` are those of the files that llama.cpp's
convert_hf_to_gguf.py (0c1e570, with transformers 5.24) makes of the same folders.
"""

import json
import math
import re
import struct
import zlib
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from vocabularies import byte_alphabet

from minillama.gguf import open_gguf

TABLE = Path(__file__).parents[1] / "convert" / "folders.json"
NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "U8": "u1"}
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = ["t h", "th e", "Ġ the", "i n", "Ġ a", "e r", "Ġ o", "o u", "a n", "an d"]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
SPECIALS = {
    "bpe": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "bos": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    "glm": ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|observation|>"),
}


@cache
def table() -> dict[str, dict[str, Any]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def write_folder(folder: Path, name: str) -> Path:
    """Write the folder of a row."""
    row = table()[name]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", row["config"])
    write_tokenizer(folder, row["tokenizer"])
    tensors = {each: values_of(each, shape, kind) for each, (shape, kind) in tensors_of(row).items()}
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def tensors_of(row: dict[str, Any]) -> dict[str, tuple[list[int], str]]:
    """Name -> shape and type; `{0-2}` in a name stands for numbers."""
    found: dict[str, tuple[list[int], str]] = {}
    for pattern, shape in row["tensors"].items():
        kind = next((kind for part, kind in row.get("types", {}).items() if re.search(part, pattern)), "F32")
        names = [pattern]
        while "{" in names[0]:
            first, last = map(int, re.search(r"\{(\d+)-(\d+)\}", names[0]).groups())
            names = [re.sub(r"\{\d+-\d+\}", str(n), each, count=1) for each in names for n in range(first, last + 1)]
        found |= dict.fromkeys(names, (shape, kind))
    return found


def values_of(name: str, shape: list[int], kind: str) -> tuple[np.ndarray, str]:
    """Random values that depend on the name only, as the bytes of a type."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if kind in ("U8", "F8_E4M3"):
        low, high = (100, 126) if name.endswith("_scales") else (0, 127) if kind == "F8_E4M3" else (0, 256)
        return rng.integers(low, high, shape).astype(np.uint8), kind
    values = np.float32(0.1) * rng.standard_normal(shape, np.float32)
    if name.endswith("A_log"):
        values = np.round(values * 40) / np.float32(8)
    if kind == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16), kind
    return values.astype(NUMPY[kind]), kind


def write_safetensors(path: Path, tensors: dict[str, tuple[np.ndarray, str]]) -> None:
    """Write a safetensors file; the package has no BF16 and FP8 in numpy."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (values, kind) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [np.ascontiguousarray(values).tobytes() for values, _ in tensors.values()]
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def write_tokenizer(folder: Path, kind: str) -> None:
    """`spm`: tokenizer.model; `json`: SentencePiece in tokenizer.json; the others are byte pairs."""
    settings: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    if kind == "spm":
        pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{b:02X}>", 0.0, 6) for b in range(256))]
        pieces += [("▁", -1.0, 1), ("▁the", -2.5, 1), ("er", -3.0, 1), ("<user>", 0.0, 4), ("spare", 0.0, 5)]
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(pieces))
        settings |= {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        settings |= {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": {
            "1": _added("<s>"), "262": _added("<user>", special=False),
            "264": _added("<|turn|>", special=False)}}  # fmt: skip
    elif kind == "json":
        write_json(folder / "tokenizer.json", _json_sentencepiece())
        settings |= {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    else:
        specials = SPECIALS[kind]
        write_json(folder / "tokenizer.json", byte_pairs(specials, bos=kind == "bos"))
        settings |= {"eos_token": specials[-1], "pad_token": specials[0]} if kind != "glm" else {}
        settings |= {"bos_token": specials[0]} if kind == "bos" else {}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", {"temperature": 0.6, "top_k": 20, "eos_token_id": [2, 3]})


def byte_pairs(specials: tuple[str, ...], *, bos: bool = False, pattern: str = PATTERN) -> dict[str, Any]:
    """A tokenizer.json of byte pairs."""
    pattern = pattern.replace(r"|\p{N}|", r"|\p{N}{1,3}|") if bos else pattern  # Llama 3's
    texts = [*byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
    added = [(text, True) for text in specials] + [("<think>", False), ("<tool▁call>", False)]
    first = {"SpecialToken": {"id": specials[0], "type_id": 0}}
    single = [first, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {specials[0]: {"id": specials[0], "ids": [len(texts)], "tokens": [specials[0]]}},
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [
            {**_added(text, special=special), "id": len(texts) + index} for index, (text, special) in enumerate(added)
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, level]},
        "post_processor": template if bos else level, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": {text: index for index, text in enumerate(texts)}, "merges": MERGES},
    }  # fmt: skip


def _json_sentencepiece() -> dict[str, Any]:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<|channel>"]
    texts = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h", "e", "th", "the", "▁the"]
    steps = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    return {
        "version": "1.0", "truncation": None, "padding": None, "pre_tokenizer": None, "post_processor": None,
        "added_tokens": [{**_added(text), "id": index} for index, text in enumerate(specials)]
        + [{**_added("<start_of_image>"), "id": len(texts)}],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {text: index for index, text in enumerate(texts)},
                  "merges": ["t h", "th e", "▁ the"]},
    }  # fmt: skip


def _added(text: str, *, special: bool = True) -> dict[str, Any]:
    return {"content": text, "special": special, "normalized": False, "lstrip": False, "rstrip": False,
            "single_word": False}  # fmt: skip


def sentencepiece_model(pieces: list[tuple[str, float, int]]) -> bytes:
    """A SentencePiece protocol buffer with these texts, scores and types."""
    raw = b""
    for text, score, kind in pieces:
        word = text.encode()
        piece = b"\x0a" + varint(len(word)) + word + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind)
        raw += b"\x0a" + varint(len(piece)) + piece
    return raw + b"\x12\x03\x98\x02\x01"  # the trainer: byte_fallback is true


def varint(number: int) -> bytes:
    raw = b""
    while number > 127:
        raw += bytes([number & 127 | 128])
        number >>= 7
    return raw + bytes([number])


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def digests(path: Path) -> list[str]:
    """Digests of the tensors and of the metadata of a GGUF file, `general.*` left out except for the type."""
    file = open_gguf(path)
    tensors, metadata = sha256(), sha256()
    for name in sorted(file.tensors):
        tensor = file.tensors[name]
        assert math.prod(tensor.shape) > 0
        tensors.update(
            f"{name} {list(tensor.shape)} {tensor.type.name} {sha256(tensor.data.tobytes()).hexdigest()};".encode()
        )
    for key, value in sorted(file.metadata.items()):
        if key.startswith("general.") and key not in ("general.architecture", "general.file_type"):
            continue
        shown = value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value
        metadata.update(f"{key} {file.kinds[key]} {shown!r};".encode())
    return [tensors.hexdigest()[:16], metadata.hexdigest()[:16]]
