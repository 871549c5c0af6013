"""Pre-tokenizers of byte-level BPE: regular expressions by the name in `tokenizer.ggml.pre`.

Each expression splits the pieces of the expression before it; unmatched parts are pieces too. The expressions are those
of llama.cpp: the models' own, with a few simplifications. The regex engine is Oniguruma (`tokenizers.Regex`), in which
`\\z` is the end of a piece and `&&` intersects character classes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from minillama.errors import quoted

log = logging.getLogger("minillama")


@dataclass(frozen=True)
class PreTokenizer:
    """Expressions and other settings of a pre-tokenizer name (GGUF keys override `add_bos`).

    ignore_merges: a whole piece that is a token becomes that token. clean_spaces: decoding removes spaces before
    punctuation. has_bos: there is a BOS token even if the file does not name one. forces_bos: a text begins with BOS
    even if the file says otherwise. characters: merges join characters, not bytes in GPT-2's alphabet. mark_spaces: a
    space is written as ▁, as in SentencePiece. whole_newlines: newlines in a row that are a token become that token.
    """

    expressions: tuple[str, ...]
    ignore_merges: bool = False
    clean_spaces: bool = True
    add_bos: bool = False
    has_bos: bool = True
    forces_bos: bool = False
    characters: bool = False
    mark_spaces: bool = False
    whole_newlines: bool = False


_SUFFIX = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
# The first part is \s*[\r\n]+ without backtracking: megabytes of blanks would make the regex engine fail.
_BLANKS = r"(?:[^\S\r\n]*+[\r\n]+)+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|"  # letters, digits, symbols
_1_DIGIT, _3_DIGITS, _ALL_DIGITS = _WORDS % r"\p{N}", _WORDS % r"\p{N}{1,3}", _WORDS % r"\p{N}+"
_LLAMA3 = f"{_SUFFIX}|{_3_DIGITS}{_BLANKS}"
_QWEN2 = f"{_SUFFIX}|{_1_DIGIT}{_BLANKS}"
_QWEN35 = rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
# Words end where lower case changes to upper case; only a-z and A-Z have a case here.
_UPPER, _LOWER = r"[\p{L}&&[^a-z]]", r"[\p{L}&&[^A-Z]]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|"
_CASED_MARKED = _CASED.replace(r"\p{L}&&", r"\p{L}\p{M}&&")  # accents belong to their letters
_SLASHED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
_LETTERS_OR_SYMBOLS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+"
)
_DEEPSEEK3 = rf"{_LETTERS_OR_SYMBOLS}[\r\n]*|{_BLANKS}"
# Ranges never match blanks: llama.cpp treats any non-ASCII blank as a vertical tab.
_ASIAN = r"[[一-龥ࠀ-一가-퟿]&&\S]+"
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ebef\U0002f800-\U0002fa1f"
_MARKED = rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+{_SUFFIX}?|%s{_SLASHED}{_BLANKS}"


# Digits in groups of three from the right; the text before them joins the first group, as in llama.cpp. Only the first
# group of a run looks ahead to its end: a later one comes after a digit.
_GROUPS = r"(?<=\p{N})\p{N}{3}|[^\p{N}]*+\p{N}{1,3}(?=(?:\p{N}{3})*+(?!\p{N}))|[^\p{N}]+"
# The same for 0-9, cut only before whole groups of three: the text after the last group joins it too.
_WHOLE_GROUPS_FOLLOW = "(?=(?:[0-9]{3})++(?![0-9]))"
_WHOLE_GROUP = f"(?:(?<=[0-9])|{_WHOLE_GROUPS_FOLLOW})[0-9]{{3}}"
_OTHER_TEXT = f"(?:[^0-9]++|(?<![0-9])[0-9]{{1,2}}(?![0-9]))*+(?:[0-9]{{1,2}}{_WHOLE_GROUPS_FOLLOW})?"
_WHOLE_GROUPS = rf"{_WHOLE_GROUP}(?=[0-9])|{_WHOLE_GROUP}{_OTHER_TEXT}|(?=[\s\S]){_OTHER_TEXT}"
_LATIN = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ"
    "-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-"
    "ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_LINES = r"[^\n]+|\n+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"

_llama3 = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_qwen2 = PreTokenizer((_QWEN2,), clean_spaces=False)
_gpt2 = PreTokenizer((_GPT2,))
_digits = PreTokenizer((r"\p{N}", _GPT2))
_deepseek3 = PreTokenizer((r"\p{N}{1,3}", _CJK, _DEEPSEEK3), clean_spaces=False)
_glm = PreTokenizer((_LLAMA3,), has_bos=False)
_gpt4o = PreTokenizer(
    (_CASED % (f"{_SUFFIX}?", f"{_SUFFIX}?") + r"\p{N}{1,3}" + _SLASHED + _BLANKS,), clean_spaces=False
)
_bailing = PreTokenizer(
    (rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{_1_DIGIT}\s*[\r\n]|\s+(?!\S)|\s+",), clean_spaces=False
)
DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))

_ROWS: tuple[tuple[str, PreTokenizer], ...] = (
    ("default", DEFAULT),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", _llama3),
    ("dbrx smaug-bpe", PreTokenizer((_LLAMA3,))),
    ("chatglm-bpe", _glm),
    ("glm4 glm5", replace(_glm, ignore_merges=True)),
    ("qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2", _qwen2),
    ("stablelm2 megrez", replace(_qwen2, clean_spaces=True)),
    ("qwen35", PreTokenizer((_QWEN35,), clean_spaces=False)),
    ("laguna", PreTokenizer((_LINES, _QWEN2), clean_spaces=False)),
    ("ufakzeka", PreTokenizer((_1_DIGIT + _BLANKS,), clean_spaces=False)),
    ("minicpm5", PreTokenizer((r"\p{N}{1,3}", f"{_SUFFIX}|{_ALL_DIGITS}{_BLANKS}"), ignore_merges=True)),
    ("gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert", _gpt2),
    ("mpt olmo jais exaone4 jina-v1-en jina-v2-code roberta-bpe", _gpt2),
    ("trillion granite-docling", replace(_gpt2, clean_spaces=False)),
    ("starcoder refact codeshell exaone minerva-7b mellum2", _digits),
    ("command-r smollm", replace(_digits, clean_spaces=False)),
    ("falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    (
        "deepseek-llm",
        PreTokenizer(
            (
                r"[\r\n]",
                rf"\s?[{_LATIN}]+",
                r"\s?[[!-/:-~！-／：-～‘-‟　-。]&&\S]+",
                r"(?<!\s)\s+\z",
                _ASIAN,
                r"\p{N}+",
            ),
            clean_spaces=False,
        ),
    ),
    (
        "deepseek-coder",
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _ASIAN, r"\p{N}"), clean_spaces=False),
    ),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", _deepseek3),
    (
        "spark2_5",
        PreTokenizer(
            (r"\p{N}{1,3}", _CJK, _LETTERS_OR_SYMBOLS + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"), clean_spaces=False
        ),
    ),
    (
        "kimi-k2",
        PreTokenizer(
            (
                rf"[{_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN}]]+{_SUFFIX}?|\p{{N}}{{1,3}}"
                rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}",
            ),
            clean_spaces=False,
        ),
    ),
    (
        "tekken",
        PreTokenizer(
            (_CASED % ("", "") + r"\p{N}" + _SLASHED + _BLANKS,), ignore_merges=True, clean_spaces=False, add_bos=True
        ),
    ),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", _gpt4o),
    (
        "granite-embed-multi-97m",
        PreTokenizer(
            (_CASED_MARKED % (f"{_SUFFIX}?", f"{_SUFFIX}?") + r"\p{N}{1,3}" + _SLASHED + _BLANKS,),
            ignore_merges=True,
            clean_spaces=False,
        ),
    ),
    ("tiny_aya cohere2moe", PreTokenizer((_GROUPS, _MARKED % r"\p{N}{1,3}"), clean_spaces=False)),
    (
        "youtu",
        PreTokenizer(
            ("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", _MARKED % r"\p{N}"),
            ignore_merges=True,
            clean_spaces=False,
        ),
    ),
    ("poro-chat", PreTokenizer((_BLOOM,), clean_spaces=False)),
    ("bloom gpt3-finnish", PreTokenizer((_BLOOM,))),
    ("viking", PreTokenizer((_BLOOM, r"\p{N}"), clean_spaces=False)),
    ("superbpe", PreTokenizer((r"\p{N}+", _WHOLE_GROUPS), clean_spaces=False)),
    ("bailingmoe bailingmoe2 llada-moe", _bailing),
    (
        "seed-coder",
        PreTokenizer(
            (rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_BLANKS}",),
            clean_spaces=False,
        ),
    ),
    (
        "exaone-moe",
        PreTokenizer(
            (
                rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    (
        "chameleon",
        PreTokenizer(
            ("<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", r"[\t\n]|    |  ", r"\p{N}", r"[\p{P}!-/:-@\[-`{-~]", _GPT2),
            clean_spaces=False,
            add_bos=True,
        ),
    ),
    (
        "jais-2",
        PreTokenizer(
            (
                f"{_SUFFIX}|{_3_DIGITS}"
                r"(?<![^\S\r\n])\s*[\r\n]+"  # past a blank, none follows in this run
                r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)"
                r"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
            )
        ),
    ),
    (
        "afmoe",
        PreTokenizer(
            (
                _GROUPS,
                "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
                _DEEPSEEK3,
            ),
            clean_spaces=False,
        ),
    ),
    (
        "gemma4 granite-embed-multi-311m",
        PreTokenizer((_LINES,), characters=True, mark_spaces=True, forces_bos=True, whole_newlines=True),
    ),
    ("sarvam-moe", PreTokenizer((_LINES,), characters=True, mark_spaces=True, clean_spaces=False)),
    ("whitespace", PreTokenizer((r"\S+",), characters=True)),
)
PRETOKENIZERS: Mapping[str, PreTokenizer] = MappingProxyType(
    {name: pretokenizer for names, pretokenizer in _ROWS for name in names.split()}
)


def find_pretokenizer(metadata: Mapping[str, object]) -> PreTokenizer:
    """The pre-tokenizer of a file; `default` with a warning for a missing or unknown name."""
    name = metadata.get("tokenizer.ggml.pre")
    if isinstance(name, str) and name in PRETOKENIZERS:
        return PRETOKENIZERS[name]
    found = "names no pre-tokenizer" if name is None else f"names the unknown pre-tokenizer {quoted(name)}"
    log.warning(
        "the file %s (tokenizer.ggml.pre); 'default' splits the text instead, which lowers answer quality: "
        "convert the model again, or use a model with one of %s",
        found,
        ", ".join(sorted(PRETOKENIZERS)),
    )
    return DEFAULT
