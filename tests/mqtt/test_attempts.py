"""Guessing takes time, a right password is never locked out, and the table stays small."""

from gateway.mqtt.attempts import FORGET_S, FREE, MAX_KEYS, MAX_WAIT_S, Attempts

KEY = ("10.0.0.1", "alice")


def failed(times, now_s=100.0):
    attempts = Attempts()
    for _ in range(times):
        attempts.failed(KEY, now_s)
    return attempts


def test_the_first_failures_cost_nothing():
    """A typo is no attack."""
    assert failed(FREE - 1).wait_s(KEY, 100.0) == 0.0


def test_after_five_failures_every_try_takes_a_second():
    """One after the other, however many connections they come over; more than ten at once are turned away."""
    attempts = failed(FREE)
    assert [attempts.wait_s(KEY, 100.0) for _ in range(11)] == [*map(float, range(1, 11)), None]
    assert attempts.wait_s(KEY, 101.5) == 9.5
    assert MAX_WAIT_S == 10.0


def test_nobody_else_waits():
    """Neither another user behind that address, nor that user from another."""
    attempts = failed(50)
    assert attempts.wait_s(("10.0.0.1", "bob"), 100.0) == 0.0
    assert attempts.wait_s(("10.0.0.2", "alice"), 100.0) == 0.0


def test_a_right_password_and_time_clear_it():
    """A delay, never a lock."""
    attempts = failed(50)
    attempts.succeeded(KEY)
    assert attempts.wait_s(KEY, 100.0) == 0.0
    assert failed(50).wait_s(KEY, 101.0 + FORGET_S) == 0.0


def test_the_table_is_bounded():
    """Whoever failed longest ago is forgotten first."""
    attempts = Attempts()
    for number in range(MAX_KEYS + 10):
        for _ in range(FREE):
            attempts.failed((f"h{number}", ""), float(number))
    assert attempts.wait_s(("h0", ""), MAX_KEYS + 10.0) == 0.0
    assert attempts.wait_s((f"h{MAX_KEYS}", ""), MAX_KEYS + 10.0) == 1.0
    assert len(attempts._next_s) == len(attempts._failures) == MAX_KEYS
