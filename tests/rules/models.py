"""Small models of rules, to be held beside the engine. They share no line with it, and no idea of how it works.

A model is asked at every whole second what the passing of time does, and then told what events came in that second. It
knows no deadlines, no queue, no snapshots and no fields beyond a number; nothing in it is ever computed ahead.
Time is whole seconds. `None` is a reading that is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

HOT, COLD = 20, 15
"""Where the level rule begins; where it ends, if it has an `until`."""


class Level(NamedTuple):
    """A rule that is active while something holds."""

    hold: int = 0
    keep: int = 0
    cooldown: int = 0
    stale: int | None = None
    drives: bool = False
    """It commands an actuator and ends on silence."""
    until: bool = False
    crossing: str = ""
    """`` (a condition), `crossing`, or `on_start` (a crossing that a first value is, too)."""
    window: str = ""
    """`` (the value itself), `avg` or `count`."""
    span: int = 5


@dataclass
class LevelModel:
    """What a level rule does. `when` is value > HOT, avg > HOT, or at least two values > HOT within the span."""

    rule: Level
    phase: str = "off"
    since: int = 0
    sure: bool = False
    heard: int | None = None
    over_since: int | None = None
    began: int | None = None
    was_below: bool = False
    samples: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.was_below = self.rule.crossing != "crossing"

    def second(self, now: int) -> list[str]:
        """What the passing of time alone does."""
        said = []
        if self._silent(now):
            self.sure = False
            if self.phase == "waiting":
                self.phase = "off"
            if self.phase == "on" and self.rule.drives:
                self.phase, self.over_since = "off", None
                said.append("end")
        elif self.rule.window and self.heard is not None:
            said += self._reading(now, self._truth(now, None))
        if self.phase == "waiting" and self.sure:
            said += self._try(now)
        if self.phase == "on" and self.over_since is not None and now - self.over_since >= self.rule.keep:
            said += self._finish()
        return said

    def event(self, now: int, value: float | None) -> list[str]:
        """What a fresh event does."""
        if value is not None:
            self.samples.append((now, value))
        truth = self._truth(now, value)
        if truth is not None:
            self.heard = now
        return self._reading(now, truth)

    def _silent(self, now: int) -> bool:
        return self.rule.stale is not None and self.heard is not None and now - self.heard >= self.rule.stale

    def _truth(self, now: int, value: float | None) -> bool | None:
        """Whether it is to be active, as far as anybody knows."""
        rule, is_ending = self.rule, self.phase == "on" and self.rule.until
        recent = [each for at, each in self.samples if now - rule.span < at <= now]
        if rule.window == "count":
            hot = sum(each > HOT for each in recent)
            return hot >= 1 if is_ending else hot >= 2
        if rule.window == "avg":
            value = sum(recent) / len(recent) if recent else None
        if value is None:
            return None
        return value >= COLD if is_ending else value > HOT

    def _reading(self, now: int, truth: bool | None) -> list[str]:
        self.sure = truth is not None
        if truth is None:
            return []
        if truth:
            self.over_since = None
            if self.phase == "off" and self.was_below:
                self.phase, self.since = "waiting", now
            return self._try(now) if self.phase == "waiting" else []
        self.was_below = True
        if self.phase == "waiting":
            self.phase = "off"
        if self.phase == "on":
            self.over_since = now if self.over_since is None else self.over_since
            if now - self.over_since >= self.rule.keep:
                return self._finish()
        return []

    def _try(self, now: int) -> list[str]:
        cool = self.began is None or now - self.began >= self.rule.cooldown
        if now - self.since < self.rule.hold or not cool:
            return []
        self.phase, self.began, self.over_since = "on", now, None
        self.was_below = not self.rule.crossing
        return ["begin"]

    def _finish(self) -> list[str]:
        self.phase, self.over_since = "off", None
        return ["end"]


class Sequence(NamedTuple):
    """A rule that every event fires, with waits in what it does."""

    mode: str = "single"
    most: int = 2
    waits: tuple[int, ...] = ()
    cooldown: int = 0
    limit: int | None = None
    """Firings within a minute."""
    gated: bool = False
    """Only values > HOT fire it."""


@dataclass
class Run:
    """One sequence under way."""

    name: int
    step: int
    due: int


@dataclass
class SequenceModel:
    """What a sequence does."""

    rule: Sequence
    runs: list[Run] = field(default_factory=list)
    queue: list[Run] = field(default_factory=list)
    began: list[int] = field(default_factory=list)

    def second(self, now: int) -> list[str]:
        """What the passing of time alone does."""
        said: list[str] = []
        while due := [run for run in self.runs if run.due <= now]:
            said += self._go(min(due, key=lambda run: run.due), now)
        return said

    def event(self, now: int, value: float | None, name: int) -> list[str]:
        """What a fresh event does."""
        rule = self.rule
        if rule.gated and (value is None or value <= HOT):
            return []
        if self.began and now - self.began[-1] < rule.cooldown:
            return []
        if rule.limit is not None and len([at for at in self.began if now - at < 60]) >= rule.limit:
            return []
        if rule.waits:
            under_way = len(self.runs) + len(self.queue)
            if rule.mode == "restart":
                self.runs, self.queue = [], []
            elif under_way >= (1 if rule.mode == "single" else rule.most):
                return []
        self.began.append(now)
        run = Run(name, 0, now)
        if self.runs and rule.mode == "queued":
            self.queue.append(run)
            return []
        self.runs.append(run)
        return self._go(run, now)

    def _go(self, run: Run, now: int) -> list[str]:
        said = [f"{run.name}.{run.step}"]
        if run.step < len(self.rule.waits):
            run.due = now + self.rule.waits[run.step]
            run.step += 1
            return said
        self.runs.remove(run)
        if self.queue and not self.runs:
            self.runs.append(self.queue.pop(0))
            self.runs[0].due = now
        return said


class Silence(NamedTuple):
    """A rule that waits for nothing to come."""

    silent: int = 5
    cooldown: int = 0


@dataclass
class SilenceModel:
    """What a rule about silence does."""

    rule: Silence
    heard: int | None = None
    began: int | None = None
    is_gone: bool = False

    def second(self, now: int) -> list[str]:
        """What the passing of time alone does."""
        is_silent = self.heard is not None and now - self.heard >= self.rule.silent
        cool = self.began is None or now - self.began >= self.rule.cooldown
        if not is_silent or self.is_gone or not cool:
            return []
        self.is_gone, self.began = True, now
        return ["gone"]

    def event(self, now: int) -> list[str]:
        """What a fresh event does."""
        self.heard = now
        if not self.is_gone:
            return []
        self.is_gone = False
        return ["back"]
