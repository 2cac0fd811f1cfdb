"""What is known of one actuator: since when it may be on, since when it rests, and which records say so.

Invariants:
- What was told to go off and has not confirmed it may still be on, and counts as on for all that time if it never did.
- The rest is counted from the first `off`, confirmed or not, however often it is said again.
- Each moment names the record that tells of it. A `Standing` tells all of them at once, in place of older records.
- Pure: time comes as an argument.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.model import ActuatorLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model import Command

RATE_PER_MINUTE = 20
"""Switchings of one actuator that are let through in a minute. More is a loop, not a need."""
REPEAT_S = 60.0
"""How often an actuator past its `max_on` is told to go off."""
NO_LIMITS = ActuatorLimits()
_MINUTE_NS = 60_000_000_000


class Moment(NamedTuple):
    """When something happened, on the log's clock."""

    at_ns: int
    seq: int | None
    """The record that tells of it; None if none does."""


class Standing(msgspec.Struct, frozen=True, tag="standing", omit_defaults=True):
    """What is known of one actuator, as a record of the log: whoever reads it needs nothing older.

    Times are the log's elapsed time. Field names are part of the log format.
    """

    topic: str
    state: str | None = None
    on_ns: int | None = None
    """Since when it may be on."""
    was_on_ns: int | None = None
    """While it has not confirmed its `off`: since when it has been on."""
    off_ns: int | None = None
    """Since when it is commanded off."""
    told_off_ns: int | None = None
    """When the cap last asked for it to be switched off."""


class Actuator:
    """One actuator, from the first command on."""

    __slots__ = (
        "is_named",
        "limits",
        "max_on_ns",
        "min_off_ns",
        "off",
        "off_again",
        "off_since",
        "on_since",
        "sent_ns",
        "state",
        "told_off_ns",
        "was_on_since",
    )

    def __init__(self, limits: ActuatorLimits, on_since: Moment, *, is_named: bool) -> None:
        """See the module.

        Args:
            limits: what it is held to.
            on_since: nobody knows better: it counts as on.
            is_named: rules name it by its whole topic, not by a pattern.
        """
        self.state: str | None = None
        """As last commanded; None: nobody has, as far as is known."""
        self.on_since: Moment | None = on_since
        """Since when it may be on; None: it is off, or has been told to."""
        self.was_on_since: Moment | None = None
        """While it has not confirmed its `off`: since when it has been on, should that turn out to have failed."""
        self.off_since: Moment | None = None
        """Since when it is commanded off, or a later time at which it was, if it has rested since."""
        self.off_again: Moment | None = None
        """When it was commanded off once more: takes the place of `off_since` once that is a rest ago as well."""
        self.told_off_ns: int | None = None
        """When the cap last asked for it to be switched off."""
        self.sent_ns: deque[int] = deque(maxlen=RATE_PER_MINUTE)
        self.hold_to(limits, is_named=is_named)

    def hold_to(self, limits: ActuatorLimits, *, is_named: bool) -> None:
        """Other limits from now on. What is known stays."""
        self.limits = limits
        self.is_named = is_named
        self.min_off_ns = int(limits.min_off_s * 1e9)
        self.max_on_ns = int((limits.max_on_s or 0.0) * 1e9)
        self.off = off_command(limits)
        """What the cap sends; None: there is no cap, or nothing that could be sent."""

    @property
    def maybe_on_since(self) -> Moment | None:
        """Since when it may be on, if it did not obey."""
        return self.on_since if self.on_since is not None else self.was_on_since

    @property
    def due_ns(self) -> int | None:
        """When the cap wants it told to go off."""
        if self.on_since is None or self.off is None:
            return None
        due_ns = self.on_since.at_ns + self.max_on_ns
        return due_ns if self.told_off_ns is None else max(due_ns, self.told_off_ns + int(REPEAT_S * 1e9))

    def why_not_on(self, now_ns: int) -> str:
        """Which of its limits an `on` would break; empty: none."""
        limits = self.limits
        if self.off_since is not None and now_ns - self.off_since.at_ns < self.min_off_ns:
            off_s = (now_ns - self.off_since.at_ns) / 1e9
            return f"off for {off_s:.0f} s, min_off is {limits.min_off_s:.0f} s"
        if self.maybe_on_since is not None and limits.max_on_s is not None:
            on_s = (now_ns - self.maybe_on_since.at_ns) / 1e9
            if on_s >= limits.max_on_s:
                return f"on for {on_s:.0f} s, max_on is {limits.max_on_s:.0f} s"
        return ""

    def is_flooded(self, now_ns: int) -> bool:
        """Whether it has had its fill of commands for this minute."""
        return len(self.sent_ns) == RATE_PER_MINUTE and now_ns - self.sent_ns[0] < _MINUTE_NS

    def turn_on(self, moment: Moment) -> None:
        """It has been told to go on."""
        if self.on_since is None:
            # An `off` that was never confirmed may never have been heard.
            self.on_since, self.told_off_ns = self.was_on_since or moment, None
        elif self.on_since.seq is None:
            self.on_since = self.on_since._replace(seq=moment.seq)
        self.off_since = self.off_again = self.was_on_since = None
        self.state = "on"

    def turn_off(self, moment: Moment, *, will_answer: bool) -> None:
        """It has been told to go off. `will_answer`: a confirmation is awaited."""
        was_on_since = self.maybe_on_since or moment
        if was_on_since.seq is None:
            was_on_since = was_on_since._replace(seq=moment.seq)
        # Of what never answers, nobody will ever say more than that it was told.
        self.on_since, self.was_on_since = None, was_on_since if will_answer else None
        if self.off_since is None or self.state == "on":
            self.off_since, self.off_again = moment, None
        elif self.off_again is None and moment.seq is not None:
            self.off_again = moment
        self.state = "off"

    def forget_until_rested(self, now_ns: int) -> None:
        """What was off a whole rest ago may count from the latest telling before then: no older record is needed."""
        if self.off_again is not None and self.off_again.at_ns <= now_ns - self.min_off_ns:
            self.off_since, self.off_again = self.off_again, None

    @property
    def is_limited(self) -> bool:
        """Whether it matters how long it has been on or off."""
        return self.limits.max_on_s is not None or self.min_off_ns > 0

    @property
    def may_have_to_go_off(self) -> bool:
        """Whether it may be on, and somebody has to know: for its cap, or for when everything is made safe.

        One that is named is made safe in any case; of the others somebody has to know that there is one.
        """
        matters = self.is_limited or (self.limits.safe is not None and not self.is_named)
        return matters and self.maybe_on_since is not None

    def is_at_rest(self, now_ns: int) -> bool:
        """Whether nothing would be lost with it: no limit counts any more, and it was left alone."""
        has_rested = self.off_since is None or now_ns - self.off_since.at_ns >= self.min_off_ns
        was_left_alone = not self.sent_ns or now_ns - self.sent_ns[-1] >= _MINUTE_NS
        return not self.is_named and not self.may_have_to_go_off and has_rested and was_left_alone

    def needed(self) -> Iterator[Moment]:
        """What its limits still count from, and what tells that it may have to be made safe."""
        if self.may_have_to_go_off and self.maybe_on_since is not None:
            yield self.maybe_on_since
        if self.is_limited and self.off_since is not None:
            yield self.off_since

    def oldest_seq(self, now_ns: int | None = None) -> int | None:
        """The oldest record on which it rests. With the time, what has rested by now is let go of."""
        if now_ns is not None:
            self.forget_until_rested(now_ns)
        return min((moment.seq for moment in self.needed() if moment.seq is not None), default=None)

    def standing(self, topic: str) -> Standing:
        """All that a later life has to know of it."""
        return Standing(
            topic, self.state, _at(self.on_since), _at(self.was_on_since), _at(self.off_since), self.told_off_ns
        )

    def rest_upon(self, standing: Standing, seq: int) -> None:
        """A record tells by now what was known when it was made. What has become known since is told by its own."""
        self.on_since = _told(self.on_since, standing.on_ns, seq)
        self.was_on_since = _told(self.was_on_since, standing.was_on_ns, seq)
        self.off_since = _told(self.off_since, standing.off_ns, seq)
        if self.off_again is not None and (self.off_again.seq or 0) < seq:
            self.off_again = None

    def adopt(self, standing: Standing, seq: int) -> None:
        """Know what the record `seq` tells, and nothing else."""
        self.state = standing.state
        self.on_since = _moment(standing.on_ns, seq)
        self.was_on_since = _moment(standing.was_on_ns, seq)
        self.off_since = _moment(standing.off_ns, seq)
        self.off_again, self.told_off_ns = None, standing.told_off_ns


def off_command(limits: ActuatorLimits) -> Command | None:
    """What is sent when `max_on` is over; None: there is none, or nothing that could be sent."""
    if limits.max_on_s is None:
        return None
    if limits.off is not None:
        return limits.off
    return limits.safe if limits.safe is not None and limits.safe.state == "off" else None


def _at(moment: Moment | None) -> int | None:
    return None if moment is None else moment.at_ns


def _moment(at_ns: int | None, seq: int) -> Moment | None:
    return None if at_ns is None else Moment(at_ns, seq)


def _told(moment: Moment | None, told_ns: int | None, seq: int) -> Moment | None:
    """A moment, with the record that tells of it by now."""
    if moment is None or moment.at_ns != told_ns or (moment.seq is not None and moment.seq > seq):
        return moment
    return Moment(moment.at_ns, seq)
