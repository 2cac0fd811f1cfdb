"""R1: random lives of a thermostat in an engine, against a model that knows no deadlines and looks all the time.

`MODEL_SEQUENCES=1000000` runs as many lives; the default takes a few seconds. What a life is made of: readings that
drift, jump, repeat themselves or are no numbers; silence; windows; away; a timetable; a wall clock that becomes known
late and jumps; retained, duplicate and replayed messages; commands that were denied, came too late or were never
confirmed; restarts, and ticks at any time.
"""

from __future__ import annotations

import math
import os
import random
from itertools import pairwise

import pytest

from gateway.model import Batch, Command, Kind, Stamp
from gateway.mqtt.topics import compile_filter
from gateway.rules.compiled import RuleSet
from gateway.rules.engine import Engine
from gateway.rules.expressions.expression import compile_condition, compile_value
from gateway.rules.thermostat_rule import (
    COOL,
    HEAT,
    OFF,
    Away,
    Contact,
    Fall,
    Limits,
    Setpoints,
    Thermostat,
    Timetable,
    WindowSensor,
)

S = 1_000_000_000
DAY = 86_400 * S
LIVES = int(os.environ.get("MODEL_SEQUENCES", "1200"))
pytestmark = pytest.mark.timeout(max(180, LIVES // 20))

SETPOINTS = {
    "heat": [Setpoints(20, 22), Setpoints(16, 17, name="a"), Setpoints(23, 25, name="b"), Setpoints(15, 28, name="c")],
    "cool": [Setpoints(None, None, on, off, name) for on, off, name in ((26, 24, ""), (30, 28, "a"), (22, 21, "b"))],
    "both": [Setpoints(20, 22, 26, 24), Setpoints(12, 13, 30, 29, "a"), Setpoints(24, 25, 27, 26, "b")],
}
ONS = {"heat": (HEAT,), "cool": (COOL,), "both": (HEAT, COOL)}
READING, IS_OPEN, IS_AWAY = compile_value("t"), compile_condition("open"), compile_condition("away")
TOPICS = {name: compile_filter(name) for name in ("sensor", "window-0", "window-1", "mode", "elsewhere")}


class Daily:
    """A time of day, in seconds, without days and zones."""

    def __init__(self, second):
        self.at_ns = second * S

    def next_after(self, wall_ns):
        return (wall_ns - self.at_ns) // DAY * DAY + DAY + self.at_ns

    def describe(self):
        return f"{self.at_ns // S}"


class Model:
    """A thermostat as one would write it without deadlines: it is looked at all the time."""

    def __init__(self, kind, limits, timetable):
        self.limits, self.timetable = limits, timetable
        self.on_for_safety = COOL if kind == "cool" else HEAT
        self.mode, self.changed, self.said, self.rested = None, 0, 0, 0
        self.value, self.heard, self.samples, self.chilled = None, -math.inf, [], -math.inf
        self.away, self.offset = False, None
        self.windows = [{"open": False, "turned": -math.inf, "heard": 0, "blocks": False} for _ in limits.contacts]
        self.strikes, self.barred, self.again = 0, None, math.inf

    def look(self, now, reading=None, window=None, away=None):
        """What to send now: a mode, or nothing."""
        self._listen(now, reading, window, away)
        if self.mode is None:
            return self._turn(now, OFF)
        wish, urgent = self._wish(now)
        if wish != self.mode:
            if self.mode != OFF and (urgent or now - self.changed >= self.limits.min_on_ns):
                return self._turn(now, OFF)
            rested = now - self.changed >= self.limits.min_off_ns and (self.barred is None or now >= self.barred)
            if self.mode == OFF and rested:
                return self._turn(now, wish)
        if now - self.said >= self.limits.reassert_ns or now >= self.again:
            self.said, self.again = now, math.inf
            return self.mode
        return None

    def fail(self, now, outcome, is_on):
        """The latest command came to nothing."""
        was_first = self.said == self.changed
        if outcome == "expired" and not is_on and self.mode == OFF:
            self.changed, self.said, self.again = now if was_first else self.changed, now, math.inf
            return OFF
        wait = max(30 * S, min(30 * S * 2**self.strikes, self.limits.reassert_ns))
        self.strikes += 1
        if not is_on or outcome == "unconfirmed" or (outcome == "expired" and not was_first):
            self.again = now + wait
            return None
        self.mode, self.said, self.again, self.barred = OFF, now, math.inf, now + wait
        self.changed = self.rested if was_first else now
        return OFF

    def _turn(self, now, mode):
        if mode == OFF:
            self.strikes, self.barred = 0, None
        else:
            self.strikes = self.strikes if self.barred is not None else 0
            self.rested = self.changed
        self.mode, self.changed, self.said, self.again = mode, now, now, math.inf
        return mode

    def _listen(self, now, reading, window, away):
        if reading is not None:
            self.value, self.heard = reading, now
            if self.limits.fall is not None:
                drop, within, pause = self.limits.fall
                if any(now - at <= within and before - reading >= drop for at, before in self.samples):
                    self.samples, self.chilled = [], now + pause
                self.samples.append((now, reading))
        self.away = self.away if away is None else away
        for number, (contact, known) in enumerate(zip(self.limits.contacts, self.windows, strict=True)):
            if known["open"] and contact.stale_after_ns and now - known["heard"] >= contact.stale_after_ns:
                known.update(open=False, turned=now)
            if window is not None and window[0] == number:
                known["turned"] = known["turned"] if window[1] == known["open"] else now
                known.update(open=window[1], heard=now)
            if known["open"] and now - known["turned"] >= contact.for_ns:
                known["blocks"] = True
            if not known["open"] and now - known["turned"] >= contact.resume_after_ns:
                known["blocks"] = False

    def _wish(self, now):
        limits = self.limits
        if self.mode != OFF and limits.max_on_ns and now - self.changed >= limits.max_on_ns:
            return OFF, True
        silent = now - self.heard >= limits.stale_after_ns
        if silent and limits.on_stale == "off":
            return OFF, True
        if silent and limits.on_stale == "on":
            return self.on_for_safety, False
        if now < self.chilled or any(known["blocks"] for known in self.windows):
            return OFF, False
        if silent:
            return self.mode, False
        below, heated, above, cooled, _ = self._setpoints(now)
        if below is not None and (self.value < below or (self.mode == HEAT and self.value <= heated)):
            return HEAT, False
        if above is not None and (self.value > above or (self.mode == COOL and self.value >= cooled)):
            return COOL, False
        return OFF, False

    def _setpoints(self, now):
        if self.away and self.limits.away is not None:
            return self.limits.away
        if not self.timetable or self.offset is None:
            return self.limits.base
        ages = [((now + self.offset - daily.at_ns) % DAY, -rank) for rank, (daily, _) in enumerate(self.timetable)]
        return self.timetable[-min(ages)[1]][1]


def _thermostat(rng):
    """A thermostat with anything that one can have."""
    kind = rng.choice(list(SETPOINTS))
    base, *others = SETPOINTS[kind]
    contacts = tuple(
        Contact(f"window-{n}", rng.randrange(8) * S, rng.randrange(8) * S, rng.choice([None, rng.randrange(1, 20) * S]))
        for n in range(rng.choice([0, 0, 1, 2]))
    )
    limits = Limits(
        stale_after_ns=rng.randrange(1, 20) * S,
        on_stale=rng.choice(["off", "hold"] if kind == "both" else ["off", "hold", "on"]),
        base=base,
        min_on_ns=rng.randrange(10) * S,
        min_off_ns=rng.choice([rng.randrange(1, 10), rng.randrange(1, 10), 45]) * S,
        max_on_ns=rng.choice([None, rng.randrange(1, 30) * S]),
        reassert_ns=rng.choice([7, 25, 50, 1_000]) * S,
        away=rng.choice([None, rng.choice(others)._replace(name="away")]),
        contacts=contacts,
        fall=Fall(rng.choice([1.0, 3.0]), rng.randrange(1, 30) * S, rng.randrange(1, 20) * S)
        if kind == "heat" and rng.random() < 0.3
        else None,
    )
    entries = [(Daily(rng.randrange(90)), rng.choice([base, *others])) for _ in range(rng.choice([0, 0, 1, 2, 4]))]
    commands = {OFF: tuple(Command(f"{each}/set", b"off", "off") for each in ONS[kind])}
    for on in ONS[kind]:
        offs = [Command(f"{each}/set", on.encode(), "off") for each in ONS[kind] if each != on]
        commands[on] = (*offs, Command(f"{on}/set", on.encode(), "on"))
    windows = tuple(WindowSensor(TOPICS[contact.name], IS_OPEN) for contact in contacts)
    away = None if limits.away is None else Away(TOPICS["mode"], IS_AWAY)
    thermostat = Thermostat(
        id="warm", place="", fingerprint="1", on=TOPICS["sensor"], reading=READING, limits=limits, commands=commands,
        timetable=Timetable(tuple(entries)) if entries else None, windows=windows, away=away,
    )  # fmt: skip
    return thermostat, Model(kind, limits, entries)


def _record(rng, temperature):
    """(topic, value, flags, what the model hears of it)."""
    what, flags = rng.random(), rng.choice([1] * 9 + [4, 9, 0x21])
    heard = {}
    if what < 0.7:
        value = rng.choice([temperature] * 9 + [math.nan, None, "x", True, math.inf])
        if value is temperature:
            heard = {"reading": value}
        topic, fields = "sensor", {"t": value}
    elif what < 0.85:
        number, value = rng.randrange(2), rng.choice([True, True, False, False, None, 1])
        heard = {"window": (number, value)} if isinstance(value, bool) else {}
        topic, fields = f"window-{number}", {"open": value}
    elif what < 0.95:
        value = rng.choice([True, False, None])
        topic, fields, heard = "mode", {"away": value}, {"away": value}
    else:
        topic, fields = "elsewhere", {}
    return topic, fields, flags, heard if flags == 1 else {}


class Life:
    """One life of an engine, and beside it that of the model and of the relay."""

    def __init__(self, rng):
        self.rng = rng
        self.thermostat, self.model = _thermostat(rng)
        self.listens = {source.text for source in self.thermostat.sources}
        self.ruleset = RuleSet(thermostats=(self.thermostat,))
        self.engine = Engine(self.ruleset)
        self.said, self.modelled, self.outcomes = [], [], []
        self.relays = {}
        """Of each actuator, what it really did: (when, on or off, why)."""
        self.late = set()
        """Actuators that should have been switched off by now, and were not."""
        self.offset, self.is_synced = rng.randrange(3) * DAY + rng.randrange(90) * S, rng.random() < 0.7
        self.bad_luck = rng.choice([0.05, 0.15, 0.5])
        self.seq, self.temperature, self.has_begun = 0, rng.uniform(15, 30), False

    def live(self):
        rng = self.rng
        bustle = rng.choice([0.1, 0.3, 0.5])
        for second in range(rng.choice([60] * 9 + [400])):
            now = second * S
            self._model(now)
            self._keep(self.engine.tick(now))  # deadlines lie before whatever comes at the same instant
            self._fail(now)
            while rng.random() < bustle:
                self._bring(now)
            if rng.random() < 0.05:
                self._restart()
            if rng.random() < 0.3:
                self._keep(self.engine.tick(now + rng.randrange(S)))
            self._model(now + 1)  # what the wall clock says anew is looked at in the next instant
        self._keep(self.engine.tick(now + 1))

    def _bring(self, now):
        """A batch of records, and sometimes another time on the wall."""
        rng = self.rng
        jump = rng.random()
        self.temperature = rng.uniform(10, 35) if jump < 0.2 else self.temperature + rng.uniform(-2, 2)
        if jump < 0.05:
            self.offset += rng.choice([-1, 1]) * rng.choice([2, 17, 3_600, 86_400 * 3, 86_400 * 366]) * S
            self.is_synced = rng.random() < 0.8
        records = [_record(rng, self.temperature) for _ in range(rng.choice([1, 1, 1, 3]))]
        topics, values, flags, heard = (list(column) for column in zip(*records, strict=True))
        stamp = Stamp(now + self.offset, 0, now, bytes(16), self.is_synced)
        count = len(records)
        batch = Batch(Kind.EVENTS, stamp, topics, [1] * count, flags, [b""] * count, values=values, seq=self.seq)
        self.seq += count
        if self.is_synced:
            self.model.offset = self.offset
        for topic, flag, news in zip(topics, flags, heard, strict=True):
            if flag == 1 and topic in self.listens:
                self.has_begun = True
                self._model(now, **news)
        self._keep(self.engine.run(batch))

    def _restart(self):
        snapshot, self.engine = self.engine.snapshot(), Engine(self.ruleset)
        assert self.engine.restore(snapshot) == []
        assert self.engine.snapshot() == snapshot

    def _model(self, now, **news):
        if self.has_begun:
            command = self.model.look(now, **news)
            if command:
                self.modelled.append((now, command))

    def _keep(self, decisions):
        """Take note of what was commanded, and let fate decide what comes of it."""
        sets = {}
        for decision in decisions:
            name = (decision.elapsed_ns, decision.action.payload.decode(), decision.because)
            sets.setdefault(name, []).append(decision)
        for (at, mode, because), commands in sets.items():
            self.said.append((at, mode))
            lost, outcome = None, ""
            if self.rng.random() < self.bad_luck:
                lost = self.rng.choice(commands)
                is_on = lost.action.state == "on"
                outcome = self.rng.choice(["denied", "expired", "unconfirmed"] if is_on else ["expired", "unconfirmed"])
                told = (at // S + self.rng.choice([1, 1, 2, 4])) * S
                self.outcomes.append((told, outcome, len(self.said), lost.id, is_on))
            for decision in commands:
                if decision is lost and outcome == "expired" and decision.action.state == "off":
                    self.late.add(decision.action.topic)
                if decision is not lost or outcome == "unconfirmed":
                    switches = self.relays.setdefault(decision.action.topic, [(-DAY, "off", "")])
                    if switches[-1][1] != decision.action.state:
                        is_late = decision.action.topic in self.late and decision.action.state == "off"
                        switches.append((at, decision.action.state, f"late: {because}" if is_late else because))
                    self.late.discard(decision.action.topic)

    def _fail(self, now):
        due = [entry for entry in self.outcomes if entry[0] <= now]
        self.outcomes = [entry for entry in self.outcomes if entry[0] > now]
        for _, outcome, nth, name, is_on in due:
            is_latest = nth == len(self.modelled)
            command = self.model.fail(now, outcome, is_on) if is_latest else None
            if command:
                self.modelled.append((now, command))
            self._keep(self.engine.refused(name, outcome, now))


def _check_relays(life):
    """None toggles within `min_on` or `min_off`, but for safety."""
    limits = life.thermostat.limits
    for switches in life.relays.values():
        for (began, state, _), (ended, _, why) in pairwise(switches):
            is_for_safety = any(word in why for word in ("max_on", "silent", "nobody knows", "late"))
            rest_ns = limits.min_off_ns if state == "off" else limits.min_on_ns
            assert ended - began >= rest_ns or is_for_safety, (limits, switches, life.said)


def test_random_lives_agree_with_the_model(seed):
    """L12 and R1: same commands at the same instants, whatever comes, whenever it restarts; the relay is spared."""
    rng = random.Random(seed)
    switchings = 0
    for _ in range(LIVES):
        name = rng.getrandbits(64)
        life = Life(random.Random(name))
        life.live()
        assert life.said == life.modelled, f"Life(random.Random({name})): {life.thermostat.limits}"
        _check_relays(life)
        switchings += len(life.said)
    assert switchings > LIVES, "lives in which nothing happens show nothing"
    print(f"{LIVES} lives, {switchings} commands, 0 divergences")
