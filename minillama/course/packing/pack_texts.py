"""The scripts and the manual of a pack, filled in for its Python and platform."""

import platform
import re
import sys
from pathlib import Path

from minillama import __version__
from minillama.course.packing.wheelhouse import LOCK, size_text, this_platform, this_python

TEMPLATES = Path(__file__).parent / "files"
NAMES = ("install.sh", "install.ps1", "README.md", "README.zh-CN.md")
_PLACE = re.compile(r"@\{(\w+)\}")  # scripts use the dollar sign themselves


def pack_texts(wheels: int, size: int) -> dict[str, str]:
    """Text of each file, by name."""
    values = {
        "version": __version__,
        "python": this_python(),
        "major": str(sys.version_info.major),
        "minor": str(sys.version_info.minor),
        "platform": this_platform(),
        "system": platform.system(),
        "machine": platform.machine(),
        "lock": LOCK,
        "wheels": str(wheels),
        "size": size_text(size),
    }
    texts = {name: (TEMPLATES / name).read_text(encoding="utf-8") for name in NAMES}
    return {name: _PLACE.sub(lambda match: values[match[1]], text) for name, text in texts.items()}
