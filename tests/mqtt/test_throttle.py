"""A client that sends faster than it may is read more slowly, by exactly what it was too fast."""

import pytest

from gateway.mqtt.throttle import Throttle


def test_a_second_of_messages_is_free():
    """Devices send in bursts."""
    throttle = Throttle(10, None)
    assert throttle.take(10, 10**9, 50.0) == 0.0
    assert throttle.take(5, 1, 50.0) == pytest.approx(0.5)


def test_in_the_long_run_the_rate_is_kept():
    """Whatever the bursts: who waits as told sends so many a second."""
    throttle, now_s = Throttle(None, 1_000), 7.0
    for _ in range(100):
        now_s += throttle.take(1, 700, now_s)
    assert 70_000 / (now_s - 7.0) == pytest.approx(1_000, rel=0.02)


def test_the_stricter_of_the_two_counts():
    """Small messages meet the one, large ones the other."""
    throttle = Throttle(10, 1_000)
    assert throttle.take(1, 3_000, 0.0) == pytest.approx(2.0)
    assert throttle.take(20, 0, 10.0) == pytest.approx(1.0)


def test_silence_is_not_saved_up():
    """An hour of silence does not pay for an hour's burst."""
    throttle = Throttle(10, None)
    throttle.take(1, 1, 0.0)
    assert throttle.take(30, 1, 3_600.0) == pytest.approx(2.0)
