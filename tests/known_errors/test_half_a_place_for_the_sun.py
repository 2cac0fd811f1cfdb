"""`latitude` without `longitude` was passed over in silence: the rule then went by the gateway's place."""

from __future__ import annotations

import textwrap

import pytest

from gateway.errors import ConfigError
from gateway.rules.reading.language import load_rules
from gateway.rules.reading.trigger_reader import Site


@pytest.mark.parametrize(("given", "missing"), [("latitude", "longitude"), ("longitude", "latitude")])
def test_half_a_place_is_refused_even_if_the_gateway_has_one(tmp_path, given, missing):
    """A place is taken whole, from the rule or from the gateway."""
    path = tmp_path / "rules.yaml"
    source = f"""\
        rules:
          - id: lights
            on: {{sun: sunset, {given}: 52}}
            then: [{{notify: {{to: x, text: y}}}}]
    """
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_rules([path], Site(location=(52.5, 13.4)))
    assert [problem.removeprefix(f"{path}:") for problem in caught.value.problems] == [
        f"3:9: `{missing}` is missing: a place of its own has both"
    ]
