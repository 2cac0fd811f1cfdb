"""A reading that was no number, in a window: `avg(t, 10s)` over `{"t": "x"}` raised out of the engine.

The rules stage ended with it, and so did every restart, since the log brought the same event again. A window takes
numbers; what is none is unknown, as everywhere else, and adds nothing.
"""

import textwrap

import pytest

from gateway.model import Event, Stamp
from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules


def _event(at_s, value):
    stamp = Stamp(0, 0, at_s * 10**9, bytes(16), True)
    return Event(id="", seq=at_s, topic="t", payload=b"", value=value, flags=1, stamp=stamp)


@pytest.mark.parametrize("function", ["avg", "min", "max", "sum", "rate", "delta", "stddev", "median", "p95"])
@pytest.mark.parametrize("odd", ["x", True, [1], {"a": 1}])
def test_what_is_no_number_adds_nothing_to_a_window(tmp_path, function, odd):
    """Whatever a device sends, rules go on: the window holds what it would hold without that event."""
    path = tmp_path / "rules.yaml"
    path.write_text(
        textwrap.dedent(f"""
            rules:
              - id: a
                on: t
                then: [{{notify: {{to: x, text: "{{{function}(v, 1m)}}"}}}}]
        """)
    )
    said = []
    for values in ([2, odd, 5], [2, {}, 5]):
        engine = Engine(load_rules([path]))
        decisions = [
            decision
            for at_s, value in enumerate(values, 1)
            for decision in engine.step(_event(at_s, value if value == {} else {"v": value}))
        ]
        said.append([decision.action.text for decision in decisions])
    assert said[0] == said[1]
