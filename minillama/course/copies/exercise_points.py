"""Points of the labs' exercises."""

EACH = 1.0
# The checks of these use the learner's own measurements: they see that an answer is complete, and a reader judges it.
BY_READER = {("08", "changes"), ("12", "target"), ("12", "trade_offs"), ("12", "look_back")}
# The report has the points of its rubric (minillama/lab/grading/rubric.py): target, trade-offs, predictions.
POINTS = {("12", "target"): 4.0, ("12", "trade_offs"): 6.0, ("12", "look_back"): 3.0}


def points_of(lab: str, exercise: str) -> float:
    """Points of one exercise."""
    return POINTS.get((lab, exercise), EACH)
