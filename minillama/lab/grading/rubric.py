"""The report's rubric, with the recorded facts for a human grader."""

from minillama.lab.grading.decisions import Decisions, limits_met, word_count
from minillama.lab.grading.lab_results import TITLES, Results
from minillama.lab.language import translate

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
    roof = translate("a roofline") if "01" in results and results["01"].roof else translate("no roofline")
    ratios = [ratio.times(results) for each in decisions.trade_offs for ratio in (each.gain, each.cost)]
    there = sum(ratio is not None for ratio in ratios)
    processors = len({str(found.machine.get("cpu")) for found in results.values()})
    back = decisions.look_back
    lost = sum(len(found.problems) for found in results.values()) + len(decisions.problems)
    missing = [lab for lab in TITLES if lab not in results]
    named = ", ".join(missing) or translate("none")
    gaps = translate("labs without results: {labs}", labs=named)
    gaps += translate("; {count} parts unreadable", count=lost) if lost else ""
    return [
        (translate("Target"), translate("names the users and the limits in numbers; the numbers fit the purpose"), "4",
         _limits(results, decisions)),
        (translate("Trade-offs"),
         translate("each has a gain and a cost, measured in one run, and a reason that uses the target"), "6",
         translate("{count} trade-offs, {measured} of {ratios} ratios measured",
                   count=len(decisions.trade_offs), measured=there, ratios=len(ratios))),
        (translate("Honest measuring"),
         translate("no compile time, several repetitions, one change at a time, same machine"), "4",
         translate("{processors} processor(s), {tried} exercises tried", processors=processors, tried=tried)),
        (translate("The roofline"),
         translate("decode speed is compared with its bound; the rest of the time is explained"), "3",
         translate("{roof}, {count} dots", roof=roof, count=dots)),
        (translate("Predictions"),
         translate("made before measuring; one is reviewed, and the wrong assumption is named"), "3",
         translate("{said} made, {measured} measured, {skipped} skipped, {changed} changed later, {reviewed} reviewed",
                   said=said, measured=len(looked), skipped=skipped, changed=changed,
                   reviewed=translate("one") if back else translate("none"))),
        (translate("Words"), translate("a reader who was not there can decide with them"), "3",
         translate("{count} words", count=words)),
        (translate("Gaps"), translate("names what was not done or not measured"), "1", gaps),
        (translate("Exercises"), translate("of the labs that were done"), "1",
         translate("{solved} of {tried} solved", solved=solved, tried=tried)),
    ]  # fmt: skip


def _limits(results: Results, decisions: Decisions) -> str:
    if decisions.target is None:
        return translate("no target")
    words = [word for _, word in limits_met(decisions.target, results).values()]
    return translate(
        "{count} limits: {met} met, {missed} missed",
        count=len(words), met=words.count("met"), missed=words.count("missed"),
    )  # fmt: skip
