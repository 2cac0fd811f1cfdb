"""How long to rest between two reads of a fast stream, so that each brings many messages. Pure: time is an argument.

A broker writes every message by itself, and whoever wakes up for each pays for the wake-up, not for the message. So a
stream that is fast and comes in small pieces is read every few milliseconds in place of whenever there is something.

That is right only while the broker goes on sending. One that waits for acknowledgements (mosquitto's window is 20 in
3.1.1) sends nothing more during a rest, and resting would slow it down to a window per rest. MQTT does not say which of
the two it is, so it is measured: how much comes without rests, then how much with them.

    free ── fast, in small pieces ──▶ trial ── as much comes as before ──▶ resting ── HOLD_S ──▶ free
    free ◀── clearly less: no trial for a time that doubles ── trial
    free ◀── little comes, or nothing ── trial, resting

Where a sync takes long the two can go together: what was acknowledged at its end brings the broker's next messages, and
these are waited for as in the free state (`settled`), since no longer rest would make the next batch any larger.

Invariants:
- A message that comes alone is read at once: only a stream of `FAST_PER_S` rests, and never for longer than `REST_S`.
- Nothing but reading waits. What was settled is acknowledged meanwhile.
- What resting costs a broker that waits for us is bounded: a trial, in a time that doubles up to `MOST_BLOCKED_S`.
"""

from __future__ import annotations

FAST_PER_S = 5_000
"""Below this rate every message is read as it comes."""
SMALL_MESSAGES = 32
"""Reads that bring more on average are large enough by themselves."""
REST_S, SHORT_S = 0.002, 0.001
"""Timers of the loop count in milliseconds."""
FULL_BYTES = 48 * 1024
"""A read of this size left something behind: no rest."""
LARGE_BYTES = 16 * 1024
"""After a read of this size the rest is short: the system's buffer is as small as 64 KiB, and a broker that finds it
full may begin to drop messages of QoS 0."""
FREE_S, TRIAL_S, HOLD_S = 0.05, 0.05, 2.0
SHARE = 0.75
"""What the rate with rests must be, of that without. A broker that waits for us comes to half at most."""
EMPTY_IN_A_ROW = 3
"""So many rests that brought nothing are the end of a stream."""
BLOCKED_S, MOST_BLOCKED_S = 1.0, 60.0


class Pace:
    """One connection's."""

    def __init__(self) -> None:
        self.is_resting = False
        """Reads are a matter of time, not of the socket."""
        self._read_s = 0.0
        self._since_s = 0.0
        self._reads = self._messages = self._empty = 0
        self._free_rate = 0.0
        self._is_trial = False
        self._hold_until_s = 0.0
        self._blocked_until_s = 0.0
        self._blocked_s = BLOCKED_S

    def read(self, messages: int, size_bytes: int, now_s: float) -> float | None:
        """Take note of a read and decide about the next.

        Args:
            messages: how many it brought.
            size_bytes: of what it brought.
            now_s: when, in monotonic seconds of a fine clock; those of uvloop count in milliseconds.

        Returns:
            Seconds to rest; 0.0 to read again at once; None to read when there is something.
        """
        self._read_s = now_s
        self._reads += 1
        self._messages += messages
        if self.is_resting:
            self._rested(messages, now_s)
        elif now_s - self._since_s >= FREE_S:
            self._measured(now_s)
        if not self.is_resting:
            return None
        if size_bytes >= FULL_BYTES:
            return 0.0
        return SHORT_S if size_bytes >= LARGE_BYTES else REST_S

    def settled(self, now_s: float) -> bool:
        """Everything that was read is acknowledged: whether to end a rest and read when there is something."""
        return self.is_resting and now_s - self._read_s >= SHORT_S

    def stop(self) -> None:
        """Reading is interrupted: what is measured across that means nothing."""
        self._free(0.0)

    def _measured(self, now_s: float) -> None:
        rate = self._messages / (now_s - self._since_s)
        is_small = self._messages <= SMALL_MESSAGES * self._reads
        self._begin(now_s)
        if rate >= FAST_PER_S and is_small and now_s >= self._blocked_until_s:
            self.is_resting = self._is_trial = True
            self._free_rate = rate

    def _rested(self, messages: int, now_s: float) -> None:
        self._empty = 0 if messages else self._empty + 1
        if self._empty == EMPTY_IN_A_ROW:
            self._free(now_s)
        elif now_s - self._since_s >= TRIAL_S:
            rate = self._messages / (now_s - self._since_s)
            self._begin(now_s)
            self._judge(rate, now_s)

    def _judge(self, rate: float, now_s: float) -> None:
        if self._is_trial and rate < SHARE * self._free_rate:
            self._blocked_until_s = now_s + self._blocked_s
            self._blocked_s = min(2 * self._blocked_s, MOST_BLOCKED_S)
            self._free(now_s)
        elif self._is_trial:
            self._is_trial = False
            self._hold_until_s = now_s + HOLD_S
            self._blocked_s = BLOCKED_S
        elif rate < FAST_PER_S / 2 or now_s >= self._hold_until_s:
            self._free(now_s)

    def _free(self, now_s: float) -> None:
        self.is_resting = self._is_trial = False
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        self._since_s = now_s
        self._reads = self._messages = self._empty = 0
