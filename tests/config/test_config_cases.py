"""One fault per file: `cases/FAULT.bad.yaml` gives exactly the problem in its first line, `*.good.yaml` loads.

The first line of a bad file is `# line:column: message`; `{here}` stands for the directory. A good file begins with a
line `# warning line:column: message` for each warning that it gives, and with none if it gives none.
"""

from pathlib import Path

import pytest

from gateway.config.loader import load
from gateway.errors import ConfigError

CASES = Path(__file__).parent / "cases"
BAD = sorted(CASES.glob("*.bad.yaml"))
GOOD = sorted(CASES.glob("*.good.yaml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_a_fault_is_told_once_with_its_place(path, config):
    """One fault is one line: its place, what is wrong, what to write instead. Nothing follows from it."""
    case = config(path.read_bytes())
    expected = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    with pytest.raises(ConfigError) as refused:
        load(case)
    assert refused.value.problems == [f"{case}:{expected}".replace("{here}", str(case.parent))]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name.removesuffix(".good.yaml"))
def test_what_is_sound_loads_with_its_warnings(path, config):
    """What is allowed and should not stay so is said, and stops nobody."""
    case = config(path.read_bytes())
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = [line.removeprefix("# warning ") for line in lines if line.startswith("# warning ")]
    assert list(load(case).warnings) == [f"{case}:{line}" for line in expected]


def test_there_are_cases_of_both_kinds():
    """A moved directory cannot empty the tables above unnoticed."""
    assert len(BAD) >= 100
    assert len(GOOD) >= 15
