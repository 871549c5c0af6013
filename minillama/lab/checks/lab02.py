"""Graded items of lab 02: a GGUF file from its bytes."""

import struct

import numpy as np
from gguf import quants
from gguf.constants import GGMLQuantizationType as TensorType

from minillama.lab.grading.check import Answer, Mistake, NotYet, Score, as_array, call, expect_equal, graded
from minillama.lab.grading.check import score as score_of
from minillama.lab.grading.course_seed import hidden_cases, hidden_random, one_of, whole
from minillama.lab.language import message, translate

LAB = "02"
SEED = 20231  # hidden inputs
BLOCK_SIZES = ((1, 2), (32, 34), (256, 144), (256, 210))  # weights and bytes: F16, Q8_0, Q4_K, Q6_K


def _header(version: int, tensors: int, pairs: int) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, pairs) + bytes(range(40))


@graded(LAB, "1. read the header")
def read_header(answer: Answer) -> str:
    """`read_header(data) -> (version, tensor count, metadata count)`."""
    cases = ((3, 29, 24), (2, 291, 25), (3, 2**33 + 5, 7))
    for version, tensors, pairs in (*cases, *hidden_cases(201, one_of(2, 3), whole(1, 2**34), whole(1, 99))):
        data = _header(version, tensors, pairs)
        expect_equal(
            answer,
            (data,),
            lambda data: struct.unpack_from("<IQQ", data, 4),
            (
                Mistake(
                    "did you step over the four bytes of the magic first?",
                    lambda data: struct.unpack_from("<IQQ", data, 0),
                ),
                Mistake(
                    "the tensor count comes before the metadata count",
                    lambda data: _swap(struct.unpack_from("<IQQ", data, 4)),
                ),
                Mistake(
                    "are the two counts 64-bit? (32-bit counts were version 1)",
                    lambda data: struct.unpack_from("<III", data, 4),
                ),
                Mistake(
                    "little-endian is `<` in struct, `>` is big-endian",
                    lambda data: struct.unpack_from(">IQQ", data, 4),
                ),
                Mistake(
                    "without `<` struct inserts padding before a 64-bit number; write '<IQQ'",
                    lambda data: struct.unpack("@IQQ", data[4 : 4 + struct.calcsize("@IQQ")]),
                ),
            ),
            case=translate("a file of version {version}", version=version),
        )
    return "version and both counts, also beyond 32 bits."


def _swap(numbers: tuple[int, int, int]) -> tuple[int, int, int]:
    return numbers[0], numbers[2], numbers[1]


def _string(data: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, offset)
    return data[offset + 8 : offset + 8 + length].decode(), offset + 8 + length


def _text(random: np.random.Generator) -> str:
    """Some letters of one to four bytes."""
    return "".join(random.choice(list("abcxyz.éßй你好世界🦙"), int(random.integers(5, 20))))


@graded(LAB, "2. read a string")
def read_string(answer: Answer) -> str:
    """`read_string(data, offset) -> (text, offset after it)`."""
    for text in ("general.name", "你好，世界", "", *(text for (text,) in hidden_cases(202, _text))):
        body = text.encode()
        data = b"\x07" * 5 + struct.pack("<Q", len(body)) + body + b"\x00" * 16
        got = call(answer, data, 5, case=translate("the string {text!r}", text=text))
        if not isinstance(got, tuple) or len(got) != 2:
            raise NotYet("return two things: the text, and the offset of the first byte after it")
        word, after = got
        if isinstance(word, bytes):
            raise NotYet("the text is still bytes; decode it as UTF-8")
        if word == text and after == 5 + 8 + len(text) and len(body) != len(text):
            raise NotYet(
                translate(
                    "the length counts bytes, not characters: {text!r} is {characters} characters and {size} bytes",
                    text=text,
                    characters=len(text),
                    size=len(body),
                )
            )
        if word == text and after == 8 + len(body):
            raise NotYet("the second result is an offset into `data`: did you add where the string began?")
        if word == text and after == 5 + len(body):
            raise NotYet("the offset after the string also counts the 8 bytes of its length")
        if (word, after) != _string(data, 5):
            raise NotYet(
                translate(
                    "for {text!r} at offset 5: got {got!r}, want {want!r}; is the length 64-bit?",
                    text=text,
                    got=(word, after),
                    want=_string(data, 5),
                )
            )
    return "lengths are bytes, and UTF-8 survives."


def _place(header_end: int, alignment: int, offset: int, row: int, row_length: int, block: tuple[int, int]) -> int:
    start = -(-header_end // alignment) * alignment
    return start + offset + row * (row_length // block[0]) * block[1]


@graded(LAB, "3. find a row in the file")
def row_place(answer: Answer) -> str:
    """`row_place(header_end, alignment, offset, row, row_length, block) -> byte of the file`."""
    cases = (
        (1_000, 32, 0, 0, 256, (1, 2)),
        (1_024, 32, 64, 1, 256, (1, 2)),
        (1_001, 64, 4_096, 3, 2_048, (32, 34)),
        (77_777, 32, 640, 11, 4_096, (256, 144)),
    )
    mistakes = (
        Mistake(
            "the data start at the *next* multiple of the alignment after the header",
            lambda end, alignment, offset, row, length, block: end + offset + row * (length // block[0]) * block[1],
        ),
        Mistake(
            "when the header already ends on a multiple, nothing is added; try -(-a // b) * b",
            lambda end, alignment, *rest: _place((end // alignment + 1) * alignment, alignment, *rest),
        ),
        Mistake(
            "round up to the alignment, not down",
            lambda end, alignment, *rest: _place(end // alignment * alignment, alignment, *rest),
        ),
        Mistake(
            "a row of n weights is n / block elements blocks, not n blocks",
            lambda end, alignment, offset, row, length, block: _place(
                end, alignment, offset, row, length, (1, block[1])
            ),
        ),
        Mistake(
            "the distance between two rows is a row's bytes, not its number of weights",
            lambda end, alignment, offset, row, length, block: _place(end, alignment, offset, row, length, (1, 1)),
        ),
        Mistake(
            "the tensor's own offset counts from the start of the data, add both",
            lambda *given: _place(*given) - given[2],
        ),
    )
    draws = (whole(100, 10**5), one_of(32, 64), whole(1, 99), whole(1, 99), whole(1, 20), one_of(*BLOCK_SIZES))
    hidden = [
        (end, alignment, alignment * offset, row, 256 * length, block)
        for end, alignment, offset, row, length, block in hidden_cases(203, *draws)
    ]
    for case in (*cases, *hidden):
        names = ("header_end", "alignment", "offset", "row", "row_length", "block")
        label = ", ".join(f"{name}={value}" for name, value in zip(names, case, strict=True))
        expect_equal(answer, case, _place, mistakes, case=label)
    return "header, alignment, offset and rows of whole blocks."


def _blocks(size: int) -> list[bytes]:
    """Blocks of random bytes after a finite scale: every code occurs, with both signs."""
    random = hidden_random(SEED)
    made = []
    for scale in (0.01171875, -0.5, 3.0517578125e-05, 0.0):
        codes = random.integers(0, 256, size - 2, dtype=np.uint8)
        made.append(np.float16(scale).tobytes() + codes.tobytes())
    return made


def _decode(kind: TensorType) -> Answer:
    return lambda block: quants.dequantize(np.frombuffer(block, np.uint8), kind)


def _parts(block: bytes) -> tuple[np.float32, np.ndarray]:
    return np.frombuffer(block[:2], "<f2")[0].astype(np.float32), np.frombuffer(block[2:], np.uint8)


def _q8_unsigned(block: bytes) -> np.ndarray:
    scale, codes = _parts(block)
    return scale * codes.astype(np.float32)


def _q8_scale_last(block: bytes) -> np.ndarray:
    scale = np.frombuffer(block[-2:], "<f2")[0].astype(np.float32)
    return scale * np.frombuffer(block[:-2], np.int8).astype(np.float32)


def _q8_integer_scale(block: bytes) -> np.ndarray:
    scale = np.float32(np.frombuffer(block[:2], "<u2")[0])
    return scale * np.frombuffer(block[2:], np.int8).astype(np.float32)


def _q8_divided(block: bytes) -> np.ndarray:
    scale, codes = _parts(block)
    return codes.view(np.int8).astype(np.float32) / (scale if scale else np.float32(1.0))


@graded(LAB, "4. decode a Q8_0 block")
def decode_q8_0(answer: Answer) -> str:
    """`decode_q8_0(block) -> 32 float32 values` from 34 bytes, exact."""
    mistakes = (
        Mistake("the codes are signed: read them as int8, not uint8", _q8_unsigned),
        Mistake("the scale is the first two bytes of the block, not the last", _q8_scale_last),
        Mistake("the scale is a float16 ('<f2', or '<e' in struct), not an integer", _q8_integer_scale),
        Mistake("a code is multiplied by the scale, not divided", _q8_divided),
    )
    for block in _blocks(34):
        expect_equal(answer, (block,), _decode(TensorType.Q8_0), mistakes, case=message("a hidden block"))
    return "four hidden blocks, every bit right."


def _nibbles(block: bytes) -> tuple[np.float32, np.ndarray, np.ndarray]:
    scale, codes = _parts(block)
    return scale, (codes & 15).astype(np.float32), (codes >> 4).astype(np.float32)


def _q4_interleaved(block: bytes) -> np.ndarray:
    scale, low, high = _nibbles(block)
    return scale * (np.stack([low, high], axis=1).reshape(-1) - np.float32(8))


def _q4_high_first(block: bytes) -> np.ndarray:
    scale, low, high = _nibbles(block)
    return scale * (np.concatenate([high, low]) - np.float32(8))


def _q4_no_offset(block: bytes) -> np.ndarray:
    scale, low, high = _nibbles(block)
    return scale * np.concatenate([low, high])


def _q4_twos_complement(block: bytes) -> np.ndarray:
    scale, low, high = _nibbles(block)
    codes = np.concatenate([low, high])
    return scale * np.where(codes > 7, codes - np.float32(16), codes)


def _q4_seven(block: bytes) -> np.ndarray:
    scale, low, high = _nibbles(block)
    return scale * (np.concatenate([low, high]) - np.float32(7.5))


def _q4_wrapped(block: bytes) -> np.ndarray:
    scale, codes = _parts(block)
    return scale * (np.concatenate([codes & 15, codes >> 4]) - np.uint8(8)).astype(np.float32)


@graded(LAB, "5. decode a Q4_0 block")
def decode_q4_0(answer: Answer) -> str:
    """`decode_q4_0(block) -> 32 float32 values` from 18 bytes, exact."""
    mistakes = (
        Mistake("where do the high nibbles go? Byte j holds elements j and j+16, not 2j and 2j+1", _q4_interleaved),
        Mistake("low nibbles are elements 0..15, high nibbles are elements 16..31", _q4_high_first),
        Mistake("codes run from 0 to 15 and mean -8 to 7: subtract 8", _q4_no_offset),
        Mistake("a nibble is not two's complement: subtract 8 from every code", _q4_twos_complement),
        Mistake("uint8 codes wrap around at 0 - 8: convert them to int8 or float32 before you subtract", _q4_wrapped),
        Mistake("the zero is at code 8, not between 7 and 8", _q4_seven),
        Mistake("subtract 8 before you multiply by the scale", lambda block: _q4_no_offset(block) - np.float32(8)),
    )
    for block in _blocks(18):
        got = as_array(call(answer, block, case=message("a hidden block")))
        if got.shape == (16,):
            raise NotYet("16 bytes hold 32 codes: two in every byte")
        expect_equal(answer, (block,), _decode(TensorType.Q4_0), mistakes, case=message("a hidden block"))
    return "four hidden blocks, every bit right."


ITEMS = (read_header, read_string, row_place, decode_q8_0, decode_q4_0)


def score() -> Score:
    """Score of the lab."""
    return score_of(ITEMS)
