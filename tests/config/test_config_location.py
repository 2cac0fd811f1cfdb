"""`gateway.location`: where the sun rises and sets for rules."""

import pytest

from gateway.config.loader import load
from gateway.config.settings import Location


@pytest.mark.parametrize(
    ("words", "location"),
    [
        ("{latitude: 52.52, longitude: 13.405}", Location(52.52, 13.405)),
        ("{latitude: -90, longitude: 180}", Location(-90.0, 180.0)),
        ("{latitude: 0, longitude: -180}", Location(0.0, -180.0)),
    ],
)
def test_a_location_is_two_numbers(config, smallest, words, location):
    """Degrees, as floats; the poles and the date line belong to the earth."""
    found = load(config(smallest.replace("{id: greenhouse-01}", f"{{id: g, location: {words}}}"))).settings.location
    assert found == location
    assert all(isinstance(each, float) for each in found)


def test_a_gateway_need_not_know_where_it_is(config, smallest):
    """Rules that follow the sun may name their own place."""
    assert load(config(smallest)).settings.location is None


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ("{latitude: 52.52}", ["1:28: `longitude` is missing"]),
        ("{}", ["1:28: `latitude` is missing", "1:28: `longitude` is missing"]),
        ("{latitude: 91, longitude: 0}", ["1:39: `latitude` is at least -90 and at most 90, not 91"]),
        ("{latitude: 0, longitude: -181}", ["1:53: `longitude` is at least -180 and at most 180, not -181"]),
        ("{latitude: .nan, longitude: 0}", ["1:39: `latitude` is a finite number"]),
        ('{latitude: "1", longitude: 0}', ['1:39: `latitude` is a number, not the text "1"; take the quotes away']),
        ("{latitude: true, longitude: 0}", ["1:39: `latitude` is a number, not `true`"]),
        ("{lattitude: 1, latitude: 1, longitude: 0}", ["1:29: unknown key `lattitude`; did you mean `latitude`?"]),
        ("Berlin", ["1:28: a mapping (key: value) is expected here, not `Berlin`"]),
    ],
)
def test_a_place_that_is_not_on_earth_is_a_problem(problems_of, smallest, words, problems):
    """Range and type are checked before anything starts."""
    told = problems_of(smallest.replace("{id: greenhouse-01}", f"{{id: g, location: {words}}}"))
    assert [line for line in told if "missing" not in line or words != "Berlin"] == problems
