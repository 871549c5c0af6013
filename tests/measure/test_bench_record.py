"""Records as JSON and back."""

import json

import pytest
from bench_example import RECORD

from minillama.measure.speed.bench_record import from_json


def test_record_survives_json() -> None:
    values = json.loads(json.dumps(RECORD.as_dict()))
    assert from_json(values) == RECORD
    del values["avg_ts"]
    with pytest.raises(ValueError, match="no avg_ts"):
        from_json(values)
