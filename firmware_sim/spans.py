"""Which messages a fault befalls: `name[/channel]@start..end`, in simulated time since the start.

    greenhouse@60s..2m           everything the greenhouse says from second 60 up to, and without, second 120
    greenhouse/climate@60s..     only its thermometer, from second 60 on
    *@..                         everything, always
    -1h, greenhouse=90s          clock skews: every clock an hour behind; one clock ahead

Durations carry their unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firmware_sim.durations import parse_duration
from firmware_sim.errors import OptionError

if TYPE_CHECKING:
    from firmware_sim.message import Message

EVERY = "*"


@dataclass(frozen=True, slots=True)
class Span:
    """Messages of one device or all, of one channel or all, made within `[start_s, end_s)`."""

    device: str = EVERY
    start_s: float = 0.0
    end_s: float = math.inf
    channel: str | None = None

    def covers(self, device: str, at_s: float) -> bool:
        """Whether something that befalls this device at this time is meant."""
        return self.start_s <= at_s < self.end_s and self.device in (EVERY, device)

    def covers_message(self, message: Message) -> bool:
        """Whether this message is meant."""
        return self.covers(message.device, message.at_s) and self.channel in (None, message.channel)


@dataclass(frozen=True, slots=True)
class Skew:
    """How far the clock of one device, or of all, is ahead."""

    device: str
    offset_s: float


def parse_span(text: str) -> Span:
    """Read `name[/channel]@start..end`; either end may be left out.

    Raises:
        OptionError: with what is wrong.
    """
    target, at, times = text.partition("@")
    start, dots, end = times.partition("..")
    device, _, channel = target.partition("/")
    if not (at and dots and device):
        raise OptionError(f"{text!r} is not of the form name@start..end, such as greenhouse@60s..2m")
    span = Span(
        device,
        parse_duration(start) if start else 0.0,
        parse_duration(end) if end else math.inf,
        channel or None,
    )
    if span.end_s <= span.start_s:
        raise OptionError(f"{text!r} ends before it starts")
    return span


def parse_skew(text: str) -> Skew:
    """Read `[name=]offset`; the offset is a duration with an optional sign. Without a name, all clocks are meant.

    Raises:
        OptionError: with what is wrong.
    """
    device, equals, offset = text.rpartition("=")
    if not offset or (equals and not device):
        raise OptionError(f"{text!r} is not of the form [name=]offset, such as 30s or greenhouse=-90s")
    size_s = parse_duration(offset.lstrip("+-") if offset[0] in "+-" else offset)
    return Skew(device or EVERY, -size_s if offset[0] == "-" else size_s)
