"""Faults to switch on: transformers of the stream of messages, each seeded, each counting what it did.

Order of the chain: stuck -> nan -> clock skew -> garble -> silence -> loss -> duplicates -> reorder. What is measured
goes wrong first, then what is encoded, then what is sent.

Invariants:
- Without faults the stream passes through unchanged; with them, every difference is counted under the fault's name.
- Each fault draws once for each message that reaches it, from a stream of its own per device, so that no device's
  traffic changes what befalls another.
- Faults never change `seq`: a lost message leaves a gap, a repeated one a duplicate.
- Reordering swaps a message with the device's next one; what is held back last comes out with `flush`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from firmware_sim.seeding import stream
from firmware_sim.spans import EVERY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from firmware_sim.message import Fields, Message
    from firmware_sim.spans import Skew, Span

_NOT_MEASURED = frozenset(("seq", "ts"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """What goes wrong. Rates are probabilities per message."""

    loss: float = 0.0
    """Never sent."""
    duplicates: float = 0.0
    """Sent twice in a row."""
    reorder: float = 0.0
    """Sent after the device's next message."""
    garble: float = 0.0
    """Cut off in mid-payload: not valid JSON."""
    nan: float = 0.0
    """Every number measured reads NaN."""
    nan_spans: tuple[Span, ...] = ()
    """The same, always, within these spans."""
    stuck: tuple[Span, ...] = ()
    """Every value stays what it was at the first message within the span."""
    silence: tuple[Span, ...] = ()
    """Nothing is sent; the connection stays."""
    deaf: tuple[Span, ...] = ()
    """Commands that arrive are ignored. The channel of such a span has no meaning."""
    clock_skew: tuple[Skew, ...] = ()
    """`ts` is off by so much."""

    def devices(self) -> set[str]:
        """Every device that is named, so that a misspelt one can be told."""
        named: list[Span | Skew] = [*self.nan_spans, *self.stuck, *self.silence, *self.deaf, *self.clock_skew]
        return {one.device for one in named} - {EVERY}


class FaultChain:
    """All faults in their order, over the messages of all devices."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._deaf = faults.deaf
        self._stages = [stage for stage in _stages(faults, seed) if stage.is_active]
        self.counts: Counter[str] = Counter()
        """How often each fault struck, by its name."""

    def feed(self, messages: Iterable[Message]) -> list[Message]:
        """What becomes of messages, in the order in which they were made."""
        out = list(messages)
        for stage in self._stages:
            out = [left for message in out for left in stage.take(message, self.counts)]
        return out

    def flush(self) -> list[Message]:
        """What is still held back."""
        out: list[Message] = []
        for stage in self._stages:
            out = [left for message in out for left in stage.take(message, self.counts)]
            out += stage.flush()
        return out

    def hears(self, device: str, at_s: float) -> bool:
        """Whether a command reaches the device; counted if not."""
        if any(span.covers(device, at_s) for span in self._deaf):
            self.counts["deaf"] += 1
            return False
        return True


class _Stage(ABC):
    """One fault."""

    name: ClassVar[str]
    is_active: bool

    @abstractmethod
    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        """What one message becomes."""

    def flush(self) -> list[Message]:
        """What is held back."""
        return []


class _Chance:
    """A biased coin per device."""

    def __init__(self, rate: float, seed: int, name: str) -> None:
        self._rate = rate
        self._seed = seed
        self._name = name
        self._streams: dict[str, Random] = {}

    def strikes(self, device: str) -> bool:
        """Toss the device's coin."""
        if self._rate <= 0:
            return False
        rng = self._streams.get(device)
        if rng is None:
            rng = self._streams[device] = stream(self._seed, "fault", self._name, device)
        return rng.random() < self._rate


class _Stuck(_Stage):
    name = "stuck"

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self.is_active = bool(spans)
        self._spans = spans
        self._frozen: dict[tuple[int, str], Fields] = {}

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        for index, span in enumerate(self._spans):
            if not span.covers_message(message):
                continue
            frozen = self._frozen.setdefault((index, message.topic), message.fields)
            stuck = {name: _kept(name, message.fields, frozen) for name in message.fields}
            if stuck != message.fields:
                counts[self.name] += 1
                return [message._replace(fields=stuck)]
        return [message]


class _NotANumber(_Stage):
    name = "nan"

    def __init__(self, rate: float, spans: tuple[Span, ...], seed: int) -> None:
        self.is_active = rate > 0 or bool(spans)
        self._chance = _Chance(rate, seed, self.name)
        self._spans = spans

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        strikes = self._chance.strikes(message.device)
        if not strikes and not any(span.covers_message(message) for span in self._spans):
            return [message]
        fields = {
            name: math.nan if isinstance(value, float) and name not in _NOT_MEASURED else value
            for name, value in message.fields.items()
        }
        if any(fields[name] is not message.fields[name] for name in fields):
            counts[self.name] += 1
        return [message._replace(fields=fields)]


class _ClockSkew(_Stage):
    name = "clock_skew"

    def __init__(self, skews: tuple[Skew, ...]) -> None:
        self.is_active = bool(skews)
        self._offset_s = {skew.device: skew.offset_s for skew in skews}

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        offset_s = self._offset_s.get(message.device, self._offset_s.get(EVERY, 0.0))
        if not offset_s:
            return [message]
        counts[self.name] += 1
        return [message._replace(fields={**message.fields, "ts": round(message.fields["ts"] + offset_s, 3)})]


class _Garble(_Stage):
    name = "garble"

    def __init__(self, rate: float, seed: int) -> None:
        self.is_active = rate > 0
        self._chance = _Chance(rate, seed, self.name)

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        if not self._chance.strikes(message.device):
            return [message]
        counts[self.name] += 1
        payload = message.payload
        return [message._replace(raw=payload[: len(payload) * 2 // 3])]


class _Silence(_Stage):
    name = "silence"

    def __init__(self, spans: tuple[Span, ...]) -> None:
        self.is_active = bool(spans)
        self._spans = spans

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        if any(span.covers_message(message) for span in self._spans):
            counts[self.name] += 1
            return []
        return [message]


class _Loss(_Stage):
    name = "loss"

    def __init__(self, rate: float, seed: int) -> None:
        self.is_active = rate > 0
        self._chance = _Chance(rate, seed, self.name)

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        if not self._chance.strikes(message.device):
            return [message]
        counts[self.name] += 1
        return []


class _Duplicates(_Stage):
    name = "duplicates"

    def __init__(self, rate: float, seed: int) -> None:
        self.is_active = rate > 0
        self._chance = _Chance(rate, seed, self.name)

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        if not self._chance.strikes(message.device):
            return [message]
        counts[self.name] += 1
        return [message, message]


class _Reorder(_Stage):
    name = "reorder"

    def __init__(self, rate: float, seed: int) -> None:
        self.is_active = rate > 0
        self._chance = _Chance(rate, seed, self.name)
        self._held: dict[str, Message] = {}

    def take(self, message: Message, counts: Counter[str]) -> list[Message]:
        strikes = self._chance.strikes(message.device)
        held = self._held.pop(message.device, None)
        if held is not None:
            # Two copies of one message change places without anyone seeing it: nothing was reordered.
            if held.seq != message.seq:
                counts[self.name] += 1
            return [message, held]
        if strikes:
            self._held[message.device] = message
            return []
        return [message]

    def flush(self) -> list[Message]:
        held = list(self._held.values())
        self._held.clear()
        return held


def _stages(faults: Faults, seed: int) -> list[_Stage]:
    return [
        _Stuck(faults.stuck),
        _NotANumber(faults.nan, faults.nan_spans, seed),
        _ClockSkew(faults.clock_skew),
        _Garble(faults.garble, seed),
        _Silence(faults.silence),
        _Loss(faults.loss, seed),
        _Duplicates(faults.duplicates, seed),
        _Reorder(faults.reorder, seed),
    ]


def _kept(name: str, fields: Fields, frozen: Fields) -> object:
    return fields[name] if name in _NOT_MEASURED else frozen.get(name, fields[name])
