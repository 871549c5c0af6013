"""The programs that `bench --against` runs."""

from pathlib import Path

import pytest

from minillama.cli.output.bench_against import find_completion, find_program
from minillama.errors import OptionError


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    with pytest.raises(OptionError, match="no such program"):
        find_program(str(program))
    with pytest.raises(OptionError, match="a folder"):
        find_program(str(tmp_path))
    program.touch()
    with pytest.raises(OptionError, match="cannot be executed"):
        find_program(str(program))
    program.chmod(0o755)
    assert find_program(str(program)) == program
    assert find_completion(program) is None
    (tmp_path / "llama-completion").touch(0o755)
    assert find_completion(program) == tmp_path / "llama-completion"
