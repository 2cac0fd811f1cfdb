"""Rooms, freezers and meters behave like the things they stand for."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from firmware_sim import World
from firmware_sim.heat import HeatBalance
from firmware_sim.room import GREENHOUSE, LIVING_ROOM, SENSOR_SIGMA_C
from firmware_sim.weather import DAY_S, Weather, relative_humidity_pct

ON, OFF = b'{"state":"ON"}', b'{"state":"OFF"}'
ROUNDING_C = 0.005


def test_heat_balance_agrees_with_a_fine_numerical_integration():
    """Law: C dT/dt = P - k (T - ambient), against ten-thousand Euler steps that share no formula."""
    balance = HeatBalance(1.0e6, 18.0)
    balance.advance(3_600.0, power_w=2_500.0, loss_w_per_k=70.0, ambient_c=5.0)
    temperature_c, lost_j, dt_s = 18.0, 0.0, 0.36
    for _ in range(10_000):
        flow_w = 70.0 * (temperature_c - 5.0)
        lost_j += flow_w * dt_s
        temperature_c += (2_500.0 - flow_w) * dt_s / 1.0e6
    assert balance.temperature_c == pytest.approx(temperature_c, abs=1e-3)
    assert balance.lost_j == pytest.approx(lost_j, rel=1e-4)


def test_energy_is_conserved_over_a_day_of_switching(seed):
    """Law: supplied - lost = C x (change of temperature), whatever happens to heater and door."""
    rng = random.Random(seed)
    world = World(seed, 2)
    while world.now_s < DAY_S:
        world.advance(rng.uniform(1.0, 900.0))
        world.command("devices/greenhouse/heater/set", rng.choice((ON, OFF)))
    room = world.room("greenhouse")
    stored_j = room.balance.capacity_j_per_k * (room.balance.temperature_c - GREENHOUSE.start_c)
    assert room.switches > 10
    assert room.balance.supplied_j - room.balance.lost_j == pytest.approx(stored_j, abs=1.0)


def test_steps_of_any_size_end_at_the_same_temperature(seed):
    """Law: each step is exact, so cutting it up changes nothing."""
    rng = random.Random(seed)
    conditions = {"power_w": rng.uniform(0, 3_000), "loss_w_per_k": rng.uniform(10, 200), "ambient_c": 3.0}
    whole, pieces = HeatBalance(1.0e6, 20.0), HeatBalance(1.0e6, 20.0)
    whole.advance(1_000.0, **conditions)
    for _ in range(100):
        pieces.advance(10.0, **conditions)
    assert pieces.temperature_c == pytest.approx(whole.temperature_c, abs=1e-9)
    assert pieces.lost_j == pytest.approx(whole.lost_j, rel=1e-9)


def test_more_heat_never_makes_a_room_colder():
    """Law: the response to heater power is monotone."""
    temperatures = []
    for power_w in (0.0, 500.0, 1_500.0, 3_000.0):
        balance = HeatBalance(1.0e6, 15.0)
        balance.advance(600.0, power_w=power_w, loss_w_per_k=60.0, ambient_c=8.0)
        temperatures.append(balance.temperature_c)
    assert temperatures == sorted(set(temperatures))


def test_room_without_heat_cools_towards_outdoors_and_with_heat_warms_steadily(seed):
    """Law: off, it falls and never below the coldest outdoors; on, every minute is warmer than the one before."""
    world = World(seed, 1, 60.0)
    room = world.room()
    before_c = room.temperature_at(0.0)
    world.advance(12 * 3_600.0)
    cold_c = room.temperature_at(world.now_s)
    assert min(world.weather.outdoor_c(t) for t in range(0, int(world.now_s), 600)) < cold_c < before_c
    world.command(room.set_topic, ON)
    world.advance(1.0)
    minutes = [room.temperature_at(world.now_s)]
    for _ in range(30):
        world.advance(60.0)
        minutes.append(room.temperature_at(world.now_s))
    assert all(later > earlier for earlier, later in pairwise(minutes))


@pytest.mark.parametrize("building", [GREENHOUSE, LIVING_ROOM])
def test_heating_and_cooling_rates_are_those_of_the_readme(building, seed):
    """Law: in its band a room gains 0.09-0.175 °C a minute, or loses 0.005-0.075, at most 0.15 with an open door."""
    weather = Weather(seed)

    def rate(temperature_c: float, now_s: float, *, heater: bool, door: bool) -> float:
        loss = building.loss_w_per_k + door * building.open_door_w_per_k
        flow_w = heater * building.heater_w + building.sun_w * weather.sunshine(now_s)
        return 60.0 * (flow_w - loss * (temperature_c - weather.outdoor_c(now_s))) / building.capacity_j_per_k

    for now_s in range(0, 3 * int(DAY_S), 300):
        for temperature_c in (20.5, 21.5):
            assert 0.09 <= rate(temperature_c, now_s, heater=True, door=False) <= 0.175
            assert -0.075 <= rate(temperature_c, now_s, heater=False, door=False) <= -0.005
            assert rate(temperature_c, now_s, heater=False, door=True) >= -0.15
            assert rate(temperature_c, now_s, heater=True, door=True) > 0.02


@pytest.mark.parametrize("interval_s", [10.0, 30.0, 60.0])
@pytest.mark.parametrize("name", ["greenhouse", "living"])
def test_two_point_control_keeps_the_room_within_its_band_plus_one_interval(name, interval_s, seed):
    """Law: with min_on and min_off of 3 min the true temperature stays in [20.5, 21.5] plus what one interval moves."""
    world = World(seed, 2, interval_s)
    room = world.room(name)
    is_on, switched_at_s = False, -math.inf
    lowest_c, highest_c = math.inf, -math.inf
    while world.now_s < DAY_S:
        for message in world.advance(interval_s / 4):
            if (message.device, message.channel) != (name, "climate"):
                continue
            measured_c = message.fields["temperature"]
            wanted = True if measured_c < 20.5 else False if measured_c > 21.5 else is_on
            if wanted != is_on and message.at_s - switched_at_s >= 180.0:
                is_on, switched_at_s = wanted, message.at_s
                world.command(room.set_topic, ON if is_on else OFF)
        if world.now_s > 3_600.0:
            lowest_c = min(lowest_c, room.temperature_at(world.now_s))
            highest_c = max(highest_c, room.temperature_at(world.now_s))
    # One interval to notice, a quarter for this loop to send, the relay's delay; then noise and rounding of the sensor.
    minutes = (1.25 * interval_s + 1.0) / 60.0
    sensor_c = 3 * SENSOR_SIGMA_C + ROUNDING_C
    assert lowest_c >= 20.5 - 0.15 * minutes - sensor_c
    assert highest_c <= 21.5 + 0.175 * minutes + sensor_c
    assert room.switches >= 20


def test_thermometer_differs_from_the_truth_by_noise_and_rounding_only(seed):
    """Law: what is published is the room's own temperature, within three sigma."""
    world = World(seed, 2)
    worst_c = 0.0
    for _ in range(2_000):
        for message in world.advance(1.0):
            if message.channel == "climate":
                truth_c = world.room(message.device).temperature_at(world.now_s)
                worst_c = max(worst_c, abs(message.fields["temperature"] - truth_c))
    # Within the second in which it was said, a room moves less than 0.005 °C.
    assert 0.0 < worst_c <= 3 * SENSOR_SIGMA_C + ROUNDING_C + 0.005


def test_looking_at_the_true_temperature_changes_nothing():
    """Law: `temperature_at` is a look, not a step."""
    looked, unseen = World(7, 4), World(7, 4)
    payloads = []
    for world in (looked, unseen):
        said = []
        for _ in range(200):
            said += [m.payload for m in world.advance(7.0)]
            if world is looked:
                world.room().temperature_at(world.now_s + 3.0)
        payloads.append(said)
    assert payloads[0] == payloads[1]


def test_meter_shows_energy_that_is_the_sum_of_power_over_time(seed):
    """Law: energy_wh grows by exactly power_w x interval, and never falls."""
    readings = [m.fields for m in World(seed, 6, 30.0).advance(DAY_S) if m.channel == "power"]
    assert len(readings) > 2_800
    for before, after in pairwise(readings):
        grown_wh = after["energy_wh"] - before["energy_wh"]
        assert grown_wh >= 0.0
        assert grown_wh == pytest.approx(after["power_w"] * 30.0 / 3_600.0, abs=0.05 * 30 / 3_600 + 0.0011)
    assert max(r["power_w"] for r in readings) > 800.0 > min(r["power_w"] for r in readings)


def test_door_alternates_and_opens_as_often_as_a_poisson_process_would(seed):
    """Law: opening, closing, opening ...; mean pause between openings 340 s, within five standard errors."""
    days = 20
    events = [m.fields["open"] for m in World(seed, 7, 3_600.0).advance(days * DAY_S) if m.device == "door-07"]
    assert events[0] is True
    assert all(a is not b for a, b in pairwise(events))
    openings, expected = sum(events), days * DAY_S / 340.0
    assert abs(openings - expected) < 5 * math.sqrt(expected)


def test_freezer_keeps_cold_by_itself_and_is_forgotten_open_now_and_then():
    """Law: it cycles between its thresholds, and once in a week is above -15 °C for more than ten minutes."""
    readings = [m for m in World(7, 3, 60.0).advance(7 * DAY_S) if m.device == "freezer"]
    longest = run = 0
    for message in readings:
        run = run + 1 if message.fields["temperature"] > -15.0 else 0
        longest = max(longest, run)
    assert longest > 10
    assert 0.5 < sum(-20.3 < m.fields["temperature"] < -16.5 for m in readings) / len(readings) < 1.0
    assert max(m.fields["temperature"] for m in readings) < 0.0


def test_weather_has_a_day_and_stays_within_its_bounds(seed):
    """Law: outdoors 1.5-14.5 °C, afternoons warmer than nights, sunshine by day only, humidity a percentage."""
    weather = Weather(seed)
    for now_s in range(0, 3 * int(DAY_S), 600):
        assert 1.5 <= weather.outdoor_c(now_s) <= 14.5
        assert 0.0 <= weather.sunshine(now_s) <= 1.0
        assert 0.0 < relative_humidity_pct(weather.vapour_hpa(now_s), weather.outdoor_c(now_s)) <= 100.0
    assert weather.outdoor_c(9 * 3_600.0) > weather.outdoor_c(21 * 3_600.0)  # 15:00 and 03:00
    assert weather.sunshine(6 * 3_600.0) > 0.0 == weather.sunshine(18 * 3_600.0)


def test_relative_humidity_matches_the_steam_tables():
    """Law: saturation pressure of water at 20 °C is 23.4 hPa, at 0 °C 6.11 hPa."""
    assert relative_humidity_pct(23.39, 20.0) == pytest.approx(100.0, abs=0.3)
    assert relative_humidity_pct(6.11, 0.0) == pytest.approx(100.0, abs=0.1)
