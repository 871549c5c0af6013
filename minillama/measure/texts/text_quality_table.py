"""Markdown table of text quality: one row per sampling setting."""

import math
from collections.abc import Sequence

from minillama.measure.tables import Column
from minillama.measure.texts.text_quality import QualityRow


def quality_columns(shown: Sequence[str]) -> tuple[Column[QualityRow], ...]:
    """Columns of the table; `shown` names the fields of the setting that get one."""
    return (
        *(_setting_column(name) for name in shown),
        Column("distinct-1", 10, lambda r: _number(r.diversity.distinct_1)),
        Column("distinct-2", 10, lambda r: _number(r.diversity.distinct_2)),
        Column("distinct-3", 10, lambda r: _number(r.diversity.distinct_3)),
        Column("self-BLEU", 9, lambda r: _number(r.diversity.self_bleu)),
        Column("rep-4", 5, lambda r: _number(r.diversity.rep_4)),
        Column("TTR", 5, lambda r: _number(r.diversity.type_token_ratio)),
        Column("entropy", 7, lambda r: _number(r.diversity.entropy, 2)),
        Column("relevance F1", 12, lambda r: _number(r.relevance.f1)),
        Column("log p", 6, lambda r: _number(r.fluency.log_likelihood)),
        Column("perplexity", 10, lambda r: _number(r.fluency.perplexity, 2)),
        Column("tokens", 6, lambda r: f"{r.fluency.tokens / len(r.samples):.1f}"),
    )


def quality_foot(row: QualityRow) -> str:
    """Notes under the table: model, references and judge."""
    samples = len(row.samples)
    prompts = sum(sample.seed == row.samples[0].seed for sample in row.samples)
    return (
        f"\nmodel: {row.model}; {samples} texts a row, of {prompts} {'prompt' if prompts == 1 else 'prompts'}, seeds "
        f"from {row.setting.seed}\n"
        f"relevance: BERTScore of {row.scorer}, idf weights,\n"
        f"  0 is what unrelated texts have (F1 {row.baseline.f1:.3f} before rescaling), 1 the same text; compare it "
        "only within this table\n"
        f"log p: nats per token after the prompt, judged by {row.judge}, before any sampling option\n"
    )


def _setting_column(name: str) -> Column[QualityRow]:
    return Column(name, len(name), lambda r: f"{getattr(r.setting, name):g}")


def _number(value: float, places: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{places}f}"
