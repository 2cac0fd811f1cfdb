"""When the client rests between reads: brokers of known behaviour, on virtual time."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from gateway.mqtt.client_pace import FULL_BYTES, LARGE_BYTES, REST_S, SHORT_S, Pace

MESSAGE_BYTES = 130
READ_S, PER_MESSAGE_S = 20e-6, 1e-6
"""What a read costs whoever reads."""


class Broker:
    """Sends at a rate, up to a window of messages without acknowledgement; a message is on its way for no time.

    What was read is settled like by the log: one sync at a time, each for all that came before it began.
    """

    def __init__(self, rate_per_s: float, window: int | None = None, settles_s: float = 0.0) -> None:
        self.rate_per_s = rate_per_s
        self.window = window
        self.settles_s = settles_s
        """What a sync takes."""
        self.now_s = 0.0
        self.ready = 0.0
        self.syncing = self.waiting = 0
        self.synced_s = math.inf

    def pass_until(self, now_s: float) -> None:
        """Send what may be sent until then."""
        while self.synced_s <= now_s:
            self._send(self.synced_s)
            self.syncing = 0
            self._sync()
        self._send(now_s)

    def _sync(self) -> None:
        self.syncing, self.waiting = self.waiting, 0
        self.synced_s = self.now_s + self.settles_s if self.syncing else math.inf

    def _send(self, now_s: float) -> None:
        came = self.rate_per_s * (now_s - self.now_s)
        if self.window is not None:
            came = min(came, self.window - self.syncing - self.waiting - self.ready)
        self.ready += came
        self.now_s = max(now_s, self.now_s)

    def next_s(self) -> float:
        """When there is a message, if nobody reads until then."""
        if self.ready >= 1.0 - 1e-9:
            return self.now_s
        if self.window is not None and self.syncing + self.waiting + 1 > self.window:
            return max(self.synced_s, self.now_s) + 1.0 / self.rate_per_s
        return self.now_s + (1.0 - self.ready) / self.rate_per_s

    def read(self) -> int:
        """Take what is there, and give it to the disk."""
        count = min(int(self.ready + 1e-9), 65_536 // MESSAGE_BYTES)
        self.ready -= count
        self.waiting += count
        if not self.syncing:
            self._sync()
        return count


class Account(NamedTuple):
    """What reading for some time came to."""

    rate_per_s: float
    batch: float
    rests_s: list[float]
    resting_share: float


def run(broker: Broker, seconds: float, pace: Pace | None) -> Account:
    """Read from a broker, with or without a pace."""
    now_s, received, reads, resting_s, rests_s = 0.0, 0, 0, 0.0, []
    rest_s = None
    while now_s < seconds:
        began_s = now_s
        if rest_s is None:
            while (next_s := broker.next_s()) > now_s:
                now_s = next_s
                broker.pass_until(now_s)
        else:
            until_s = now_s + rest_s
            while broker.synced_s < until_s and not (broker.waiting == 0 and pace.settled(broker.synced_s)):
                broker.pass_until(broker.synced_s)
            if broker.synced_s < until_s:
                now_s = broker.synced_s
                broker.pass_until(now_s)
                while (next_s := broker.next_s()) > now_s:
                    now_s = next_s
                    broker.pass_until(now_s)
            else:
                now_s = until_s
        broker.pass_until(now_s)
        count = broker.read()
        if rest_s is not None:
            resting_s += now_s - began_s
            rests_s.append(rest_s)
        received += count
        reads += 1
        rest_s = pace.read(count, count * MESSAGE_BYTES, now_s) if pace else None
        now_s += READ_S + count * PER_MESSAGE_S
    return Account(received / now_s, received / reads, rests_s, resting_s / now_s)


@pytest.mark.parametrize("settles_s", [0.0, 0.0003, 0.02])
@pytest.mark.parametrize("rate_per_s", [8_000, 60_000, 120_000])
def test_a_stream_that_flows_by_itself_is_read_in_large_pieces(rate_per_s, settles_s):
    """What resting is for: most of the time is rest, and nothing is lost of the rate."""
    free = run(Broker(rate_per_s, settles_s=settles_s), 2.5, None)
    paced = run(Broker(rate_per_s, settles_s=settles_s), 2.5, Pace())
    assert paced.rate_per_s > 0.99 * free.rate_per_s
    assert paced.batch > 10 * free.batch
    assert paced.resting_share > 0.8


@pytest.mark.parametrize("settles_s", [0.0, 0.0001, 0.0005, 0.001, 0.002, 0.003, 0.01])
@pytest.mark.parametrize("window", [2, 20, 50])
def test_a_broker_that_waits_for_acknowledgements_is_hardly_slowed_down(window, settles_s):
    """M12: with a strict window resting is tried, found to bring no more, and left for a time that doubles."""
    free = run(Broker(60_000, window, settles_s), 5.0, None)
    paced = run(Broker(60_000, window, settles_s), 5.0, Pace())
    assert paced.rate_per_s > 0.95 * free.rate_per_s


def test_a_window_that_grows_is_found_out():
    """A failure is no verdict for ever: when its time is over, resting is tried again."""
    pace, broker = Pace(), Broker(50_000, window=20)
    assert run(broker, 3.0, pace).resting_share < 0.1
    assert run(Broker(50_000), 10.0, _shifted(pace, 3.0)).resting_share > 0.5


def _shifted(pace: Pace, seconds: float) -> Pace:
    """The same pace, told of times that begin again at 0."""

    class Shifted(Pace):
        def read(self, messages: int, size_bytes: int, now_s: float) -> float | None:
            return pace.read(messages, size_bytes, now_s + seconds)

    return Shifted()


@pytest.mark.parametrize("rate_per_s", [1, 100, 1_000, 4_000])
def test_a_stream_that_is_not_fast_never_waits(rate_per_s):
    """A lone message, a command's confirmation: read at once."""
    assert run(Broker(rate_per_s), 5.0, Pace()).rests_s == []


def test_when_a_fast_stream_ends_the_rests_end_within_milliseconds():
    """The first lone message after a flood waits for one rest at most, the next for none."""
    pace, now_s = Pace(), 0.0
    for _ in range(1_000):
        now_s += 0.0001
        pace.read(6, 600, now_s)
    assert pace.is_resting
    began_s = now_s
    while (rest_s := pace.read(0, 0, now_s)) is not None:
        now_s += rest_s
    assert now_s - began_s <= 3 * REST_S
    assert pace.read(1, 100, now_s + 1.0) is None


def test_reads_that_are_large_anyway_are_not_rested_for():
    """A backlog comes as fast as it can be taken."""
    pace, now_s = Pace(), 0.0
    for _ in range(1_000):
        now_s += 0.001
        assert pace.read(500, 65_536, now_s) is None


def test_a_full_read_is_followed_by_another_at_once():
    """A rest that was too long for the buffer leaves nothing lying."""
    pace, now_s = Pace(), 0.0
    while not pace.is_resting:
        now_s += 0.0001
        pace.read(6, 600, now_s)
    assert pace.read(500, FULL_BYTES, now_s + 0.001) == 0.0
    assert pace.read(5, LARGE_BYTES, now_s + 0.0011) == SHORT_S
    assert pace.read(5, 500, now_s + 0.0022) == REST_S


def test_an_interruption_begins_the_measuring_anew():
    """A gate that was shut says nothing about the broker."""
    pace, now_s = Pace(), 0.0
    while not pace.is_resting:
        now_s += 0.0001
        pace.read(6, 600, now_s)
    pace.stop()
    assert not pace.is_resting
    assert pace.read(6, 600, now_s + 5.0) is None
