"""A seed gives llama.cpp's text: answers of llama-completion, recorded with the built-in model in F32.

The file of answers says how they were made. F32 weights and caches: with others, each program rounds differently.
"""

import json
from pathlib import Path

import numpy as np
import pytest

import minillama as ml
from minillama.gguf.quantisation_mixes import Mix
from minillama.gguf.quantise import quantise_file
from minillama.sampling.mersenne_twister import seed_words

ANSWERS = json.loads((Path(__file__).parent / "llama_cpp_texts.json").read_text())["texts"]
QUICK, OTHERS = ANSWERS[:3], ANSWERS[3:]  # the first ones are of the default chain


@pytest.fixture(scope="module")
def llm(builtin_model: Path, tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    source = builtin_model.with_name("storyteller-f16.gguf")
    target = tmp_path_factory.mktemp("f32") / "storyteller-f32.gguf"
    path = quantise_file(source, target, Mix.named("F32")).path
    return ml.load(path, ctx_size=256, progress=False, cache_type_k="f32", cache_type_v="f32")


def check(llm: ml.LLM, answer: dict, **more: object) -> None:
    done = llm.generate(answer["prompt"], n=96, seed=answer["seed"], **answer["options"], **more)
    assert done.text.rstrip("\n") == answer["text"]
    assert done.seed == answer["seed"]


def test_the_default_chain(llm: ml.LLM) -> None:
    for answer in QUICK:
        check(llm, answer)


@pytest.mark.slow
@pytest.mark.parametrize("answer", OTHERS, ids=lambda answer: f"{answer['name']}-{answer['seed']}")
def test_other_chains(llm: ml.LLM, answer: dict) -> None:
    check(llm, answer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "xtc", "mirostat2-low"])
def test_with_drafts(llm: ml.LLM, name: str) -> None:
    """A number belongs to a token of the text: drafts that are wrong have drawn nothing."""
    check(llm, next(answer for answer in ANSWERS if answer["name"] == name), lookup=True)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_words_of_a_seed(seed: int) -> None:
    assert seed_words(seed).tolist() == np.random.RandomState(seed).get_state()[1].tolist()
