"""The table of all families, by the class in config.json."""

import difflib

from minillama.convert.families import (
    deepseek_families,
    dense_families,
    expert_families,
    gemma_families,
    glm_families,
    hybrid_families,
    llama_families,
    phi_families,
    qwen_families,
    qwen_next_families,
)
from minillama.convert.family_row import Family
from minillama.convert.folder.folder_config import FolderConfig
from minillama.errors import UnsupportedError, quoted

FAMILIES: tuple[Family, ...] = (
    *llama_families.FAMILIES,
    *qwen_families.FAMILIES,
    *qwen_next_families.FAMILIES,
    *gemma_families.FAMILIES,
    *phi_families.FAMILIES,
    *glm_families.FAMILIES,
    *deepseek_families.FAMILIES,
    *dense_families.FAMILIES,
    *expert_families.FAMILIES,
    *hybrid_families.FAMILIES,
)


def find_family(config: FolderConfig) -> Family:
    """The row of a folder; UnsupportedError with the nearest known classes if there is none."""
    found = next((row for row in FAMILIES if config.architecture in row.classes and row.when(config)), None)
    if found is None:
        names = sorted({name for row in FAMILIES for name in row.classes})
        near = difflib.get_close_matches(config.architecture[:64], names, n=3, cutoff=0.4) or names[:3]
        raise UnsupportedError(
            f"cannot convert the architecture {quoted(config.architecture)} (config.json); nearest known: "
            f"{', '.join(near)}; llama.cpp's convert_hf_to_gguf.py may know it"
        )
    return found
