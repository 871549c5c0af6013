"""The report's rubric, with the recorded facts for a human grader."""

from minillama.lab.grading.decisions import Decisions, limits_met, word_count
from minillama.lab.grading.lab_results import TITLES, Results

Row = tuple[str, str, str, str]


def rubric(results: Results, decisions: Decisions) -> list[Row]:
    """Rows of criterion, expectation, points and recorded facts; a reader gives the points."""
    looked = [name for found in results.values() for name in found.measured_predictions()]
    said = sum(len(found.predictions) for found in results.values())
    skipped = sum(len(found.skipped) for found in results.values())
    changed = sum(len(found.changed) for found in results.values())
    solved = sum(sum(found.checks.values()) for found in results.values())
    tried = sum(len(found.checks) for found in results.values())
    words = sum(word_count(text) for found in results.values() for _, text in found.texts.values())
    dots = sum(len(found.dots) for found in results.values())
    roof = "a roofline" if "01" in results and results["01"].roof else "no roofline"
    ratios = [ratio.times(results) for each in decisions.trade_offs for ratio in (each.gain, each.cost)]
    there = sum(ratio is not None for ratio in ratios)
    processors = len({str(found.machine.get("cpu")) for found in results.values()})
    back = decisions.look_back
    lost = sum(len(found.problems) for found in results.values()) + len(decisions.problems)
    missing = [lab for lab in TITLES if lab not in results]
    return [
        ("Target", "names the users and the limits in numbers; the numbers fit the purpose", "4",
         _limits(results, decisions)),
        ("Trade-offs", "each has a gain and a cost, measured in one run, and a reason that uses the target", "6",
         f"{len(decisions.trade_offs)} trade-offs, {there} of {len(ratios)} ratios measured"),
        ("Honest measuring", "no compile time, several repetitions, one change at a time, same machine", "4",
         f"{processors} processor(s), {tried} exercises tried"),
        ("The roofline", "decode speed is compared with its bound; the rest of the time is explained", "3",
         f"{roof}, {dots} dots"),
        ("Predictions", "made before measuring; one is reviewed, and the wrong assumption is named", "3",
         f"{said} made, {len(looked)} measured, {skipped} skipped, {changed} changed later, "
         f"{'one' if back else 'none'} reviewed"),
        ("Words", "a reader who was not there can decide with them", "3", f"{words} words"),
        ("Gaps", "names what was not done or not measured", "1",
         f"labs without results: {', '.join(missing) or 'none'}" + (f"; {lost} parts unreadable" if lost else "")),
        ("Exercises", "of the labs that were done", "1", f"{solved} of {tried} solved"),
    ]  # fmt: skip


def _limits(results: Results, decisions: Decisions) -> str:
    if decisions.target is None:
        return "no target"
    words = [word for _, word in limits_met(decisions.target, results).values()]
    return f"{len(words)} limits: {words.count('met')} met, {words.count('missed')} missed"
