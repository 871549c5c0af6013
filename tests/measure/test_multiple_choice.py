"""Multiple choice: llama.cpp's task files and random selection, scores from full logits."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from choice_tasks import HELLASWAG, MULTIPLE_CHOICE, WINOGRANDE, multiple_choice_file
from tiny_models import write_tiny

import minillama as ml
from minillama.engine.batches import Batches
from minillama.errors import FormatError, OptionError, UnsupportedError
from minillama.measure.quality.multiple_choice import ChoiceResult, running_choices, tokenise_task
from minillama.measure.quality.task_files import (
    Task,
    draw_scaled,
    draw_uniformly,
    read_hellaswag,
    read_multiple_choice,
    read_winogrande,
)

EXACT = {"cache_type_k": "f32", "cache_type_v": "f32"}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> ml.LLM:
    return ml.load(write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama"), progress=False, **EXACT)


def slow_score(llm: ml.LLM, text: str, first: int, last: int) -> float:
    """Mean log-probability of tokens first ... last - 1, from full logits."""
    ids = llm.tokenizer.encode(text)
    logits = llm.logits(ids).astype(np.float64)
    found = [logits[i - 1, ids[i]] - np.log(np.exp(logits[i - 1]).sum()) for i in range(first, last)]
    return float(np.mean(found))


def common_tokens(llm: ml.LLM, texts: tuple[str, ...]) -> int:
    split = [llm.tokenizer.encode(text) for text in texts]
    return next(i for i in range(min(map(len, split))) if len({ids[i] for ids in split}) > 1)


@pytest.mark.parametrize("ubatch_size", [512, 32])
@pytest.mark.parametrize(
    "tasks", [read_hellaswag(HELLASWAG), read_multiple_choice(MULTIPLE_CHOICE)], ids=["hellaswag", "multiple choice"]
)
def test_endings_are_scored_behind_what_all_begin_with(llm: ml.LLM, tasks: list[Task], ubatch_size: int) -> None:
    answers = list(running_choices(replace(llm, batches=Batches(512, ubatch_size)), tasks))
    correct = texts = 0
    for number, (task, answer) in enumerate(zip(tasks, answers, strict=True), 1):
        first = common_tokens(llm, task.texts)
        expected = [slow_score(llm, text, first, len(llm.tokenizer.encode(text))) for text in task.texts]
        assert answer.scores == pytest.approx(expected, rel=1e-5)
        assert answer.chosen == int(np.argmax(expected)) and answer.right == task.right
        correct, texts = correct + (answer.chosen in task.right), texts + len(task.texts)
        assert (answer.task, answer.tasks, answer.correct, answer.texts) == (number, len(tasks), correct, texts)


def test_choices_are_scored_by_what_follows_them(llm: ml.LLM) -> None:
    tasks = read_winogrande(WINOGRANDE + "4,She sat _,in,on,1\n5,She sat _a,in,on,1\n")
    rules = []
    for task, answer in zip(tasks, running_choices(llm, tasks), strict=True):
        sizes = [len(llm.tokenizer.encode(text)) for text in task.texts]
        common = common_tokens(llm, task.texts)
        for text, front, size, score in zip(task.texts, task.scored_after or (), sizes, answer.scores, strict=True):
            behind = min(sizes) - common > 3  # else too little follows, and the choice is scored as well
            first = len(llm.tokenizer.encode(front)) if behind else common
            last = size - 1 if size - first > 1 else size
            rules.append((behind, last < size))
            assert score == pytest.approx(slow_score(llm, text, first, last), rel=1e-5)
    assert set(rules) == {(True, True), (True, False), (False, False), (False, True)}


def test_a_model_without_bos_scores_what_has_something_in_front(llm: ml.LLM) -> None:
    plain = replace(llm, tokenizer=replace(llm.tokenizer, add_bos=False, add_space_prefix=False))
    task = Task(("ant in the sand on the end", "hen in the sand on the end"), frozenset({0}), ("ant", "hen"))
    (answer,) = running_choices(plain, [task])
    prepared = tokenise_task(plain, task)
    assert prepared.shared == 0
    for text, front, score in zip(task.texts, ("ant", "hen"), answer.scores, strict=True):
        first, last = len(plain.tokenizer.encode(front)), len(plain.tokenizer.encode(text)) - 1
        assert score == pytest.approx(slow_score(plain, text, first, last), rel=1e-5)
    (answer,) = running_choices(plain, [replace(task, scored_after=None)])
    size = len(plain.tokenizer.encode(task.texts[0]))
    assert answer.scores[0] == pytest.approx(slow_score(plain, task.texts[0], 1, size), rel=1e-5)


def test_llama_cpp_finds_the_same(reference: Path) -> None:
    """Output of llama-perplexity --winogrande with an F32 cache.

    Of the last task only the first text counts: llama-perplexity takes the first logits of the second text from it.
    """
    llm = ml.load(reference / "real" / "stories260K.gguf", ctx_size=128, progress=False, **EXACT)
    answers = list(running_choices(llm, read_winogrande(WINOGRANDE)))
    expected = [(-1.227043, -1.231332), (-2.717959, -2.586687), (-2.368932, -2.956505), (-1.815941,)]
    for answer, scores in zip(answers, expected, strict=True):
        assert answer.scores[: len(scores)] == pytest.approx(scores, abs=5e-6)
    assert [answer.correct for answer in answers] == [0, 1, 2, 3]


def test_files_are_read() -> None:
    first, second = read_hellaswag(HELLASWAG)
    assert first.texts[3] == "The ant sat on the north end on" and first.right == {2} and second.right == {0}
    assert read_hellaswag(HELLASWAG[:-1]) == [first, second]
    tasks = read_winogrande(WINOGRANDE)
    assert len(tasks) == 4 and tasks[1].texts[1] == "Lily gave the ball to Tom, so Tom was happy and said thank you"
    assert tasks[1].scored_after == ("Lily gave the ball to Tom, so Lily", "Lily gave the ball to Tom, so Tom")
    assert [task.right for task in tasks] == [{1}, {1}, {0}, {0}]
    answers = read_multiple_choice(MULTIPLE_CHOICE)
    assert answers[0] == Task(
        ("What is it? an ant", "What is it? the other one on the sand", "What is it? é"), frozenset({1})
    )
    assert [len(task.texts) for task in answers] == [3, 2, 5]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_hellaswag, "", "1 lines"),
        (read_hellaswag, HELLASWAG + "more\n", "13 lines"),
        (read_hellaswag, HELLASWAG.replace("\n2\n", "\n4\n"), "line 2 is '4'"),
        (read_winogrande, "", "line 1 is ''"),
        (read_winogrande, WINOGRANDE + "4,no gap,a,b,1", "line 5 is '4,no gap,a,b,1'"),
        (read_winogrande, "0,a _ b,c,d,3", "line 1"),
        (read_winogrande, "0,a _ b,c,1", "line 1"),
        (read_multiple_choice, b"", "the file ends at byte 0"),
        (read_multiple_choice, MULTIPLE_CHOICE[:-9], "within a task"),
        (read_multiple_choice, b"\xff" * 16, "4294967295 tasks in a file of 16 bytes"),
        (read_multiple_choice, multiple_choice_file([("", ["a"], 0)]), "empty question or answer"),
        (read_multiple_choice, multiple_choice_file([("q", ["a", ""], 0)]), "empty question or answer"),
        (read_multiple_choice, multiple_choice_file([("q", ["a"] * 101, 0)]), "101 answers"),
    ],
)
def test_malformed_files_are_refused(read, content: str | bytes, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FormatError, match=message):
        read(content)


def test_draws_are_those_of_llama_cpp() -> None:
    """Recorded output; both programs print the same rows for 30, 110 and 40 tasks."""
    tasks = [Task((str(number),), frozenset()) for number in range(120)]

    def names(drawn: list[Task]) -> list[int]:
        return [int(task.texts[0]) for task in drawn]

    assert names(draw_uniformly(tasks, 8)) == [50, 119, 85, 111, 0, 15, 36, 118]
    assert names(draw_scaled(tasks, 8)) == [50, 118, 84, 109, 0, 14, 34, 112]
    assert names(draw_scaled(tasks, 110))[-4:] == [88, 102, 59, 93]
    assert sorted(names(draw_uniformly(tasks, 400))) == list(range(120))
    assert draw_scaled(tasks, 0) == draw_scaled(tasks, 120) == tasks


def test_intervals() -> None:
    """8 correct of 10: Wilson's textbook formula, and the binomial's deviation."""
    answer = ChoiceResult(10, 20, (-1.0, -2.0), 0, frozenset({0}), 8, 25)
    z = 1.959964
    centre, half = (0.8 + z * z / 20) / (1 + z * z / 10), z / (1 + z * z / 10) * math.sqrt(0.016 + z * z / 400)
    assert answer.interval == pytest.approx((centre - half, centre + half), rel=1e-6)
    assert (answer.accuracy, answer.error) == (0.8, pytest.approx(math.sqrt(0.16 / 9)))
    assert (answer.chance, answer.chance_error) == (0.4, pytest.approx(math.sqrt(0.24 / 9)))
    assert ChoiceResult(1, 1, (-1.0,), 0, frozenset({0}), 1, 1).error == 0


def test_it_stops_where_asked_to_and_refuses_what_it_cannot_do(llm: ml.LLM) -> None:
    tasks, seen = read_hellaswag(HELLASWAG), []
    for answer in running_choices(replace(llm, batches=Batches(16, 16)), tasks, lambda: len(seen) == 1):
        seen.append(answer)
    assert [answer.task for answer in seen] == [1]
    with pytest.raises(OptionError, match=r"task 1 does not fit in the context: it takes \d+ tokens of 32"):
        running_choices(replace(llm, ctx_size=32), tasks)
    with pytest.raises(UnsupportedError, match="EOS"):
        running_choices(replace(llm, tokenizer=replace(llm.tokenizer, add_eos=True)), tasks)
