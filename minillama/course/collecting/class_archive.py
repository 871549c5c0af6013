"""One zip archive of a class: notebooks, results, and a manifest with SHA-256."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minillama.atomic_file import atomic_write
from minillama.course.marking.submissions import Submission

MANIFEST = "manifest.json"
DATE = (1980, 1, 1, 0, 0, 0)  # of all members: equal submissions give an equal archive


@dataclass
class Manifest:
    """The files of an archive with their hashes, and what was left out."""

    files: list[dict[str, object]] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)


def write_archive(path: Path, submissions: Sequence[tuple[str, Submission]]) -> Manifest:
    """Write the files of named submissions, each below the learner's name, and the manifest."""
    manifest = Manifest()
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for learner, submission in submissions:
            for name, data in sorted(submission.files.items()):
                member = f"{learner}/{name}"
                _add(archive, member, data)
                digest = hashlib.sha256(data).hexdigest()
                manifest.files.append({"path": member, "learner": learner, "bytes": len(data), "sha256": digest})
            if submission.notes:
                manifest.left_out[learner] = list(submission.notes)
        content = json.dumps(vars(manifest), indent=1, ensure_ascii=False)
        _add(archive, MANIFEST, content.encode("utf-8", "replace") + b"\n")
    return manifest


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name.encode("utf-8", "replace").decode(), DATE)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
