"""One self-contained HTML file from a learner's records: machines, predictions, measurements, pictures, decisions."""

import json

from minillama.lab import record
from minillama.lab.picture import Picture


def keep(lab: str, name: str, picture: Picture) -> Picture:
    """Keep a picture and its text twin in a lab's records, for the report, and return it."""
    record.write(lab, "pictures", name, {"figure": json.loads(picture.figure.to_json()), "text": picture.text})
    return picture
