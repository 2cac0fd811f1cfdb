"""The clauses of the specification that the code names are named by the tests that hold them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LISTED = re.compile(r"\[MQTT-([^\]]+)\]")
_CLAUSE = re.compile(r"(to )?(?:(\d+\.\d+\.\d+))?-(\d+)")


def clauses(text: str) -> set[str]:
    """`[MQTT-4.6.0-2, -3]`, `[MQTT-4.3.3-1 to -7]` and `[MQTT-4.3.3-7, 4.4.0-1]`, taken apart."""
    found = set()
    for listed in _LISTED.findall(text):
        section, last = "", 0
        for to, named, number in _CLAUSE.findall(listed):
            section, first = named or section, int(number)
            found |= {f"{section}-{each}" for each in range(last + 1 if to else first, first + 1)}
            last = first
    return found


def named_in(folder: Path) -> set[str]:
    return set().union(*(clauses(path.read_text()) for path in folder.glob("*.py")))


def test_the_notation_is_read_as_it_is_meant():
    """Law of the test itself."""
    assert clauses("x [MQTT-4.6.0-2, -3] y [MQTT-4.3.3-1 to -3] z [MQTT-4.3.3-7, 4.4.0-1]") == {
        "4.6.0-2", "4.6.0-3", "4.3.3-1", "4.3.3-2", "4.3.3-3", "4.3.3-7", "4.4.0-1",
    }  # fmt: skip


def test_every_clause_that_the_listener_names_is_named_by_a_test():
    """A clause at the code is a promise; here is who holds it to it."""
    promised = named_in(ROOT / "gateway" / "mqtt")
    assert len(promised) >= 40
    assert sorted(promised - named_in(ROOT / "tests" / "mqtt")) == []
