"""Find a model file: the built-in model, a path, or a Hugging Face repository."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from minillama.errors import OptionError, ResourceError, first_line, quoted

PACKAGE = Path(__file__).resolve().parents[2]
DEFAULT_MODEL = "storyteller-q8_0.gguf"
BUILTIN_MODELS = {
    "storyteller": DEFAULT_MODEL,
    "storyteller-q8_0": DEFAULT_MODEL,
    "storyteller-f16": "storyteller-f16.gguf",
}

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(:(?P<quant>[\w.-]+))?")
# What llama.cpp takes when no quantisation is named: Q4_K_M, else the first file; Q8_0 stands between as the format
# that small models are most often published in.
_PREFERRED_QUANTS = ("Q4_K_M", "Q8_0")


def resolve(
    model: str | Path | None = None,
    *,
    hf_repo: str | None = None,
    hf_file: str | None = None,
    offline: bool = False,
    is_draft: bool = False,
) -> Path:
    """Find the GGUF file to open; of a split model, its first part.

    model: None for the built-in storyteller, the name of a built-in model, or a path.
    hf_repo: `user/repository` or `user/repository:quant` on the Hugging Face hub, fetched once and kept in its cache.
    hf_file: a file of that repository, instead of choosing one by its quantisation.
    is_draft: errors name -md, the option of a draft model.
    Raises OptionError for contradicting options, ResourceError where there is no such file or it cannot be fetched.
    """
    if hf_repo is not None:
        if model is not None:
            raise OptionError(f"both a model ({model}) and a hub repository ({hf_repo}) are given; leave one out")
        return _fetch(hf_repo, hf_file, offline)
    if hf_file is not None:
        raise OptionError(f"hf_file={hf_file} needs hf_repo: the repository that holds the file")
    if model is None:
        return data_file(DEFAULT_MODEL)
    if not isinstance(model, str | os.PathLike):
        raise OptionError(f"the model is {quoted(model)}; give the name of a file")
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if str(model) in BUILTIN_MODELS:
        return data_file(BUILTIN_MODELS[str(model)])
    raise ResourceError(_missing(path, is_draft))


def data_file(name: str) -> Path:
    """A file that comes with minillama, in an installed package or in a clone."""
    for folder in (PACKAGE / "_data", PACKAGE.parent / "data"):
        if (folder / name).is_file():
            return folder / name
    raise ResourceError(f"{name} did not come with this copy of minillama; name a file: -m model.gguf")


def labs_folder() -> Path:
    """The folder of the notebooks, in an installed package (read-only) or in a clone."""
    for folder in (PACKAGE / "_labs", PACKAGE.parent / "labs"):
        if any(folder.glob("*.ipynb")):
            return folder
    raise ResourceError("the labs did not come with this copy of minillama; clone its repository")


def choose_file(names: Sequence[str], quant: str | None, repository: str) -> str:
    """Choose a repository's GGUF file as llama.cpp does: by quantisation, else the first.

    Raises ResourceError naming what there is.
    """
    candidates = sorted(
        name
        for name in names
        if name.lower().endswith(".gguf")
        and not Path(name).name.lower().startswith(("mmproj", "imatrix"))
        and _part_number(name) == 1
    )
    if not candidates:
        raise ResourceError(f"{repository} holds no GGUF file; look for a repository whose name ends in -GGUF")
    for wanted in (quant,) if quant else _PREFERRED_QUANTS:
        pattern = re.compile(rf"(^|[-._/]){re.escape(wanted)}([-.]|$)", re.IGNORECASE)
        for name in candidates:
            if pattern.search(name.removesuffix(".gguf")):
                return name
    if quant:
        raise ResourceError(f"{repository} has no {quant}; it has: {_listing(candidates)}")
    return candidates[0]


def shards(name: str) -> list[str]:
    """All files of a split model, given its first: `a-00001-of-00003.gguf` and its two siblings."""
    match = _SHARD.search(name)
    if match is None:
        return [name]
    stem, count = name[: match.start()], int(match[2])
    return [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def _part_number(name: str) -> int:
    match = _SHARD.search(name)
    return int(match[1]) if match else 1


def _fetch(hf_repo: str, hf_file: str | None, offline: bool) -> Path:
    match = _REPOSITORY.fullmatch(hf_repo)
    if match is None:
        raise OptionError(f"hub repository {hf_repo!r} should look like user/repository or user/repository:Q4_K_M")
    repository, quant = match["repository"], match["quant"]
    if offline:
        return _from_cache(repository, quant, hf_file)

    import huggingface_hub
    from huggingface_hub import errors

    try:
        first = hf_file or choose_file(_files_on_hub(repository), quant, repository)
        paths = [Path(huggingface_hub.hf_hub_download(repository, name)) for name in shards(first)]
    except errors.GatedRepoError as error:
        raise ResourceError(
            f"{repository} requires you to accept its terms: do so on its page on the hub, then set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ResourceError(
            f"no repository {repository} on the hub (or it is private: then set HF_TOKEN); check the name"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise ResourceError(
            f"{repository} has no file {hf_file}; leave out hf_file to choose by quantisation"
        ) from error
    except (OSError, errors.HTTPError) as error:  # no network, a proxy, the hub's own errors, a full disk
        raise ResourceError(
            f"cannot fetch {repository}: {first_line(error)}; with no network, use offline or download the file "
            "elsewhere and name it with -m"
        ) from error
    return paths[0]


def _files_on_hub(repository: str) -> list[str]:
    # Not list_repo_files, which tries again for 15 seconds where there is no network.
    import huggingface_hub

    return [file.rfilename for file in huggingface_hub.HfApi().model_info(repository, timeout=15).siblings or ()]


def _from_cache(repository: str, quant: str | None, hf_file: str | None) -> Path:
    """The same choice among the files that were fetched before."""
    from huggingface_hub import constants, file_download

    folder = Path(constants.HF_HUB_CACHE, file_download.repo_folder_name(repo_id=repository, repo_type="model"))
    branch = folder / "refs" / "main"
    snapshot = folder / "snapshots" / (branch.read_text().strip() if branch.is_file() else "none")
    found = {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*.gguf")}
    if hf_file is not None:
        found = {name: path for name, path in found.items() if name == hf_file}
    if not found:
        what = f"{repository}/{hf_file}" if hf_file else repository
        raise ResourceError(f"{what} was not fetched before, so it cannot be used offline; run once with a network")
    first = choose_file(list(found), quant, repository)
    absent = [name for name in shards(first) if name not in found]
    if absent:
        raise ResourceError(f"{repository}: {_listing(absent)} was not fetched before; run once with a network")
    return found[first]


def _missing(file: Path, is_draft: bool) -> str:
    path = f"-md {file}" if is_draft else str(file)
    if file.is_dir():
        inside = sorted(each.name for each in file.glob("*.gguf"))
        return f"{path} is a folder; name a file" + (f" in it: {_listing(inside)}" if inside else "; it has no .gguf")
    if not file.parent.is_dir():
        return f"{path}: no such file; there is no folder {file.parent}"
    models = sorted(each.name for each in file.parent.glob("*.gguf"))
    near = difflib.get_close_matches(file.name, models, n=3, cutoff=0.6)
    if near:
        return f"{path}: no such file; did you mean {' or '.join(near)}?"
    if models:
        return f"{path}: no such file; that folder has: {_listing(models)}"
    if is_draft:
        return f"{path}: no such file; name a small model of the same vocabulary, -hfd user/repository fetches one"
    return f"{path}: no such file; without -m the built-in model runs, -hf user/repository fetches one"


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
