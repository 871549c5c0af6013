"""A short soak of the server; `python -m tests.soak` runs for as long as one likes."""

from pathlib import Path

import pytest

from tests.soak.campaign import soak

pytestmark = pytest.mark.slow


def test_rough_clients_get_whole_answers_or_errors(builtin_model: Path) -> None:
    found = soak(0.2, 8, ["-np", "4", "-c", "2048", "-t", "1", "-m", str(builtin_model)], seed=2, kinds=6)
    assert found.problems == []
    acts = ("read", "stream", "leave", "reset", "slow", "trickle", "nonsense", "hostile template")
    assert all(found.counts[act] for act in acts)
