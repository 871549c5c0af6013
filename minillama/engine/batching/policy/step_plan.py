"""The steps of a turn: drafts; then grammars and rare samplers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minillama.engine.batching.counters import Counters
from minillama.engine.batching.executor import Draw, Executor
from minillama.engine.batching.policy.slot_drafter import SlotDrafter
from minillama.engine.batching.slots import Slot, grammar_masks


@dataclass(frozen=True)
class StepPlan:
    """The texts of a step, and their drafts by the number of the slot.

    size: tokens of each text in a pass over drafts.
    """

    rows: Sequence[Slot]
    drafts: Mapping[int, Sequence[int]] = field(default_factory=dict)
    size: int = 1

    def dispatch(self, executor: Executor, counters: Counters) -> Draw:
        """Run the latest token of each text, with its draft, and draw."""
        places = [slot.number for slot in self.rows], [len(slot.text) for slot in self.rows]
        counters.steps += 1
        counters.step_rows += len(self.rows)
        counters.prompt_tokens += sum(slot.drawn == 0 for slot in self.rows)
        if not self.drafts:
            return executor.step(*places, **grammar_masks(self.rows))
        texts = [[slot.latest, *self.drafts.get(slot.number, ())] for slot in self.rows]
        counters.drafts += len(self.drafts)
        for slot, text in zip(self.rows, texts, strict=True):
            counters.draft_tokens += len(text) - 1
            if slot.task is not None:
                slot.task.stream.drafted_tokens += len(text) - 1
        return executor.verify(*places, texts, self.size)


def plan_steps(rows: Sequence[Slot], drafter: SlotDrafter | None) -> list[StepPlan]:
    """The steps of some texts.

    Where any has a draft, those without one join its pass, but not those with a grammar or a rare sampler.
    """
    drafts = {} if drafter is None else drafter.drafts(rows)
    if drafter is None or not drafts:
        return [StepPlan(rows)] if rows else []
    free = [slot for slot in rows if slot.task is not None and slot.task.allowed is None and not slot.is_rare]
    others = [slot for slot in rows if slot not in free]
    plans = [StepPlan(free, drafts, drafter.row_length(len(free)))]
    return [*plans, StepPlan(others)] if others else plans
