"""Output lines of llama-perplexity: perplexity, KL divergence, multiple-choice scores."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillama.measure.quality.kl_divergence import Divergence, ValueAndError
    from minillama.measure.quality.multiple_choice import ChoiceResult
    from minillama.measure.quality.perplexity import Estimate

DIVERGENCE_HEAD = (
    "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS"
    "            Same top p\n"
)
HELLASWAG_HEAD = "\ntask\tacc_norm\t95% confidence interval\n"
MULTIPLE_CHOICE_HEAD = "\ntask\tacc_norm\n"
MIN_TOKENS = 100  # for statistics of the KL divergence
MIN_TASKS = 100  # for a final Winogrande score

_KLD_SHARES = (99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1)
_P_DIFF_SHARES = (99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1)


def eta(seconds_per_pass: float, passes: float) -> str:
    """`1.25 seconds per pass - ETA 1 hours 2.50 minutes`."""
    hours, rest = divmod(int(seconds_per_pass * passes), 3600)
    return f"{seconds_per_pass:.2f} seconds per pass - ETA {f'{hours} hours ' if hours else ''}{rest / 60:.2f} minutes"


def speed(tokens: int, seconds: float) -> str:
    """A time and its rates, as in llama.cpp's timings."""
    rates = f"{1000 * seconds / tokens:8.2f} ms per token, {tokens / seconds:8.2f} tokens per second"
    return f"{1000 * seconds:10.2f} ms / {tokens:5d} tokens ({rates})"


def running(estimate: "Estimate") -> str:
    """The perplexity so far (output type 0)."""
    return f"[{estimate.chunk}]{estimate.ppl:.4f},"


def running_columns(estimate: "Estimate", step: int, *, errors: bool) -> str:
    """First token of the window, perplexity, mean nll and its error (output type 1)."""
    columns = f"{(estimate.chunk - 1) * step:8d}  {estimate.ppl:.4f}"
    return columns + (f"  {estimate.nll:4f}  {estimate.nll_error:4f}\n" if errors else "\n")


def final(estimate: "Estimate") -> str:
    """The last line of a perplexity."""
    return f"Final estimate: PPL = {estimate.ppl:.4f} +/- {estimate.error:.5f}\n"


def divergence_row(found: "Divergence") -> str:
    """The statistics of the windows so far, as a row."""
    rms, same = found.rms_p_diff, found.same_top_share
    columns = (
        f"{found.chunk:4d}",
        _pair(found.ppl, "9.4f"),
        _pair(found.log_ratio, "10.5f"),
        _pair(found.mean_kld, "10.5f"),
        f"{100 * rms.value:6.3f} ± {100 * rms.error:6.3f} %",
        f"{100 * same.value:6.3f} ± {100 * same.error:6.3f} %",
    )
    return "    ".join(columns) + "\n"


def divergence_statistics(found: "Divergence") -> str:
    """All statistics, printed at the end."""
    return "\n".join(_statistics(found)) + "\n"


def _statistics(found: "Divergence") -> Iterator[str]:
    from minillama.measure.quality.kl_divergence import percentile

    yield "====== Perplexity statistics ======"
    yield f"Mean PPL(Q)                   : {_pair(found.ppl, '10.6f')}"
    yield f"Mean PPL(base)                : {_pair(found.ppl_base, '10.6f')}"
    yield f"Cor(ln(PPL(Q)), ln(PPL(base))): {100 * found.correlation:6.2f}%"
    yield f"Mean ln(PPL(Q)/PPL(base))     : {_pair(found.log_ratio, '10.6f')}"
    yield f"Mean PPL(Q)/PPL(base)         : {_pair(found.ratio, '10.6f')}"
    yield f"Mean PPL(Q)-PPL(base)         : {_pair(found.difference, '10.6f')}"
    yield ""
    yield "====== KL divergence statistics ======"
    yield f"Mean    KLD: {_pair(found.mean_kld, '10.6f')}"
    yield f"Maximum KLD: {found.kld.max():10.6f}"
    for share in _KLD_SHARES:
        yield f"{_share(share)} KLD: {percentile(found.kld, share / 100):10.6f}"
    yield f"Minimum KLD: {found.kld.min():10.6f}"
    yield ""
    yield "====== Token probability statistics ======"
    mean, rms, same = found.mean_p_diff, found.rms_p_diff, found.same_top_share
    yield f"Mean    Δp: {100 * mean.value:6.3f} ± {100 * mean.error:5.3f} %"
    yield f"Maximum Δp: {100 * found.p_diff.max():6.3f}%"
    for share in _P_DIFF_SHARES:
        yield f"{_share(share)} Δp: {100 * percentile(found.p_diff, share / 100):6.3f}%"
    yield f"Minimum Δp: {100 * found.p_diff.min():6.3f}%"
    yield f"RMS Δp    : {100 * rms.value:6.3f} ± {100 * rms.error:5.3f} %"
    yield f"Same top p: {100 * same.value:6.3f} ± {100 * same.error:5.3f} %"


def _pair(number: "ValueAndError", form: str) -> str:
    return f"{number.value:{form}} ± {number.error:{form}}"


def _share(percent: float) -> str:
    """`99.9%  ` or `Median `: a label as wide as `Maximum`."""
    return "Median " if percent == 50 else f"{percent:4.1f}%  "


def hellaswag_row(answer: "ChoiceResult") -> str:
    """The score so far and its confidence interval."""
    low, high = answer.interval
    return f"{answer.task}\t{100 * answer.accuracy:3.8f}%\t[{100 * low:3.4f}%, {100 * high:3.4f}%]\n"


def winogrande_row(answer: "ChoiceResult") -> str:
    """The score so far, both log-probabilities, the choice and the correct one, from 1."""
    first, second = answer.scores
    (right,) = answer.right
    score = f"{answer.task}\t{100 * answer.accuracy:.4f}\t{first:10.6f}  {second:10.6f}"
    return f"{score}  {answer.chosen + 1}  {right + 1}\n"


def winogrande_final(answer: "ChoiceResult") -> str:
    """The last line; empty for fewer than `MIN_TASKS` tasks."""
    score = f"{100 * answer.accuracy:.4f} +/- {100 * answer.error:.4f}"
    return f"Final Winogrande score({answer.task} tasks): {score}\n" if answer.task >= MIN_TASKS else ""


def multiple_choice_row(answer: "ChoiceResult") -> str:
    """The score so far."""
    return f"{answer.task}\t{100 * answer.accuracy:.8f}\n"


def multiple_choice_final(answer: "ChoiceResult") -> str:
    """The last lines: the score, and the expected score of random choices."""
    return (
        f"Final result: {100 * answer.accuracy:.4f} +/- {100 * answer.error:.4f}\n"
        f"Random chance: {100 * answer.chance:.4f} +/- {100 * answer.chance_error:.4f}\n"
    )
