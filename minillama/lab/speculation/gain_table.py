"""The table of measured gains with what the law and the counted passes say."""

from collections.abc import Mapping

from minillama.lab.language import message, translate
from minillama.lab.speculation.batch_gains import BatchGain
from minillama.lab.speculation.logged_passes import MeasuredGain
from minillama.lab.speculation.pass_costs import RowCosts
from minillama.lab.speculation.speculation_law import speedup
from minillama.lab.speculation.speculation_verdict import as_predicted, gain_or_loss
from minillama.lab.speculation.speedup_figures import Dot, span
from minillama.measure.tables import plain_table

HEADERS = (
    message("guesses"), message("accepted"), message("tokens/pass"), message("law"), message("counted"),
    message("measured"), message("rounds"), message("measured is"), message("the law"),
)  # fmt: skip
BATCH_HEADERS = (
    message("texts"), message("drafts kept"), message("law"), message("measured"), message("rounds"),
    message("measured is"), message("the law"),
)  # fmt: skip


def gains_table(gains: Mapping[str, MeasuredGain], lengths: Mapping[str, int], costs: RowCosts) -> str:
    """A row for each kind of guess.

    lengths: tokens of a guess, of those whose length is fixed; others have no law. counted: the gain of the passes as
    they were, with the measured costs.
    """
    rows = []
    for name, gain in gains.items():
        run, low, high = gain.run, min(gain.ratios), max(gain.ratios)
        draft = costs.draft if name in lengths else 0.0
        law, verdict = "-", "-"
        if name in lengths:
            predicted = speedup(run.acceptance, lengths[name], draft, costs.cost(lengths[name] + 1))
            law, verdict = f"{predicted:.2f}", as_predicted(predicted, gain.ratios)
        counted = run.counted_speedup(costs, draft)
        rows.append((name, f"{run.acceptance:.0%}", f"{run.tokens_per_pass:.2f}", law, f"{counted:.2f}",
                     f"{gain.ratio:.2f}", span(low, high), gain_or_loss(gain.ratios), verdict))  # fmt: skip
    return plain_table([translate(each) for each in HEADERS], rows, right=range(1, 6))


def dots(gains: Mapping[str, MeasuredGain]) -> dict[str, Dot]:
    """Measured gains as dots of the figure."""
    return {
        name: Dot(gain.run.mean_guess, gain.ratio, min(gain.ratios), max(gain.ratios)) for name, gain in gains.items()
    }


def batch_table(gains: Mapping[int, BatchGain], predicted: Mapping[int, float]) -> str:
    """A row for each batch: the law, the measurement, and two verdicts."""
    rows = []
    for batch, gain in gains.items():
        law = predicted.get(batch)
        rows.append((str(batch), f"{gain.accepted / gain.drafted:.0%}" if gain.drafted else "-",
                     "-" if law is None else f"{law:.2f}", f"{gain.ratio:.2f}",
                     span(min(gain.ratios), max(gain.ratios)), gain_or_loss(gain.ratios),
                     "-" if law is None else as_predicted(law, gain.ratios)))  # fmt: skip
    return plain_table([translate(each) for each in BATCH_HEADERS], rows, right=range(4))
