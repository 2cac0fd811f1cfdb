"""Random lives of an engine, told to the models as well: what came, what was lost, when the process died.

A life is a function of its seed. What may not show in any decision is drawn here too: when ticks come, restarts from a
snapshot, crashes after which an older snapshot and the log behind it are all there is, and jumps of the wall clock.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.model import DUPLICATE, REPLAYED, RETAINED, Batch, Command, Decision, Kind, Stamp
from gateway.rules.engine import Engine
from gateway.rules.reading.language import load_rules
from tests.rules.models import COLD, HOT, Level, LevelModel, Sequence, SequenceModel, Silence, SilenceModel

if TYPE_CHECKING:
    from gateway.rules.compiled import RuleSet

S = 1_000_000_000
RUBBISH: tuple[Any, ...] = (math.nan, None, "x", True, 10**400, -math.inf)
VALUES: tuple[Any, ...] = (25.0, 30, 25.0, 20, 17.5, 15, 10.0, 3)
LIVES_OF_A_SETUP = 20
"""As many lives are lived with the same rules, since reading rules takes longer than a life."""
_SECONDS = 50


class Setup(NamedTuple):
    """The rules of a life."""

    level: Level
    sequence: Sequence
    silence: Silence


Said = dict[tuple[str, str], list[tuple[int, str]]]
"""(rule, key) to (second, word)."""


def random_setup(rng: random.Random) -> Setup:
    """Rules of any mixture."""
    crossing = rng.choice(["", "", "crossing", "on_start"])
    window = "" if crossing else rng.choice(["", "", "avg", "count"])
    drives = rng.random() < 0.5
    level = Level(
        hold=rng.choice([0, 0, 1, rng.randrange(8)]),
        keep=rng.choice([0, 0, rng.randrange(6)]),
        cooldown=rng.choice([0, 0, rng.randrange(30)]),
        stale=rng.randrange(1, 12) if drives or rng.random() < 0.5 else None,
        drives=drives,
        until=rng.random() < 0.5,
        crossing=crossing,
        window=window,
        span=rng.randrange(1, 9),
    )
    sequence = Sequence(
        mode=rng.choice(["single", "restart", "queued", "parallel"]),
        most=rng.randrange(1, 4),
        waits=tuple(rng.randrange(1, 9) for _ in range(rng.randrange(4))),
        cooldown=rng.choice([0, 0, rng.randrange(20)]),
        limit=rng.choice([None, None, rng.randrange(1, 6)]),
        gated=rng.random() < 0.5,
    )
    return Setup(level, sequence, Silence(rng.randrange(1, 12), rng.choice([0, 0, rng.randrange(30)])))


def rules_of(setup: Setup) -> str:
    """The same in the language."""
    return "rules:\n" + _level_yaml(setup.level) + _sequence_yaml(setup.sequence) + _silence_yaml(setup.silence)


def _level_yaml(rule: Level) -> str:
    reads = {
        "": "v > {0}",
        "avg": f"avg(v, {rule.span}s) > {{0}}",
        "count": f"count(v > {HOT}, {rule.span}s) >= {{1}}",
    }[rule.window]
    ends = {"": "v < {0}", "avg": f"avg(v, {rule.span}s) < {{0}}", "count": f"count(v > {HOT}, {rule.span}s) < 1"}
    on_start = ", also_on_start: true" if rule.crossing == "on_start" else ""
    lines = [
        f"on: {{topic: 'd/{{k}}/t', field: v, above: {HOT}{on_start}}}" if rule.crossing else "on: 'd/{k}/t'",
        "" if rule.crossing else "when: " + reads.format(HOT, 2),
        f"for: {rule.hold}s",
        f"keep_for: {rule.keep}s",
        f"cooldown: {rule.cooldown}s",
        "" if rule.stale is None else f"stale_after: {rule.stale}s",
        'on_stale: "off"' if rule.drives else "",
        "until: " + ends[rule.window].format(COLD) if rule.until else "",
        "evaluate_every: 1s" if rule.window else "",
        "most_per_minute: 100000",
    ]
    for key, state, word in (("then", "on", "begin"), ("finally", "off", "end")):
        command = f'{{command: {{topic: "{{k}}/fan", payload: "{state}", state: "{state}"}}}}'
        lines.append(f"{key}: [{command if rule.drives else f'{{notify: {{to: x, text: {word}}}}}'}]")
    return "  - id: level\n" + "".join(f"    {line}\n" for line in lines if line)


def _sequence_yaml(rule: Sequence) -> str:
    steps = []
    for number in range(len(rule.waits) + 1):
        steps += [f'{{notify: {{to: x, text: "{{n}}.{number}"}}}}']
        steps += [f"{{wait: {wait}s}}" for wait in rule.waits[number : number + 1]]
    lines = [
        "on: 'd/{k}/t'",
        f"mode: {rule.mode}",
        f"max: {rule.most}",
        f"cooldown: {rule.cooldown}s",
        "" if rule.limit is None else f"most_per_minute: {rule.limit}",
        f"where: v > {HOT}" if rule.gated else "",
        f"then: [{', '.join(steps)}]",
    ]
    return "  - id: sequence\n" + "".join(f"    {line}\n" for line in lines if line)


def _silence_yaml(rule: Silence) -> str:
    return (
        f"  - id: silence\n    on: {{topic: 'd/{{k}}/t', silent: {rule.silent}s}}\n    cooldown: {rule.cooldown}s\n"
        "    then: [{notify: {to: x, text: gone}}]\n    finally: [{notify: {to: x, text: back}}]\n"
    )


@lru_cache(maxsize=4)
def _compiled(setup: Setup) -> RuleSet:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        path.write_text(rules_of(setup), encoding="utf-8")
        return load_rules([path])


class Reading(NamedTuple):
    """One record of a life."""

    second: int
    key: str
    value: Any
    name: int
    flags: int

    @property
    def is_fresh(self) -> bool:
        """Whether rules hear of it."""
        return not self.flags & (RETAINED | DUPLICATE | REPLAYED)

    @property
    def number(self) -> float | None:
        """What it says, if it says anything."""
        value = self.value
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and value in VALUES
        return float(value) if is_number else None


def random_readings(rng: random.Random) -> list[Reading]:
    """What comes of one life, with silences in it, several at once, and what no rule may act on."""
    readings: list[Reading] = []
    now, hot = 0, rng.random()
    while now < _SECONDS:
        now += rng.choice([0, 0, 1, 1, 1, 2, 3, rng.randrange(15)])
        value = rng.choice(RUBBISH) if rng.random() < 0.15 else rng.choice(VALUES[:3] if rng.random() < hot else VALUES)
        flags = rng.choice([1, 1, 1, 1, 1, 1, 1, 1 | DUPLICATE, 1 | RETAINED, REPLAYED])
        readings.append(Reading(now, rng.choice("aab"), value, len(readings), flags))
        if rng.random() < 0.1:  # the broker offers it again
            readings.append(readings[-1]._replace(flags=1 | DUPLICATE))
    return readings


def as_models_say(setup: Setup, readings: list[Reading], end: int) -> Said:
    """The life as the models tell it."""
    said: Said = defaultdict(list)
    by_second: dict[int, list[Reading]] = defaultdict(list)
    for reading in readings:
        if reading.is_fresh:
            by_second[reading.second].append(reading)
    for key in "ab":
        level, sequence = LevelModel(setup.level), SequenceModel(setup.sequence)
        silence = SilenceModel(setup.silence)
        for now in range(end + 1):
            words = {"level": level.second(now), "sequence": sequence.second(now), "silence": silence.second(now)}
            for reading in by_second[now]:
                if reading.key == key:
                    words["level"] += level.event(now, reading.number)
                    words["sequence"] += sequence.event(now, reading.number, reading.name)
                    words["silence"] += silence.event(now)
            for rule, each in words.items():
                if each:
                    said[rule, key] += [(now, word) for word in each]
    return dict(said)


class Life:
    """One engine after another over one log."""

    def __init__(self, ruleset: RuleSet, rng: random.Random) -> None:
        self.ruleset, self.rng = ruleset, rng
        self.engine = Engine(ruleset)
        self.log: list[Batch] = []
        self.decisions: list[Decision] = []
        self.kept = (self.engine.snapshot(), 0, 0)
        """The latest snapshot on disk, and how much of the log and of the decisions lay before it."""
        self.wall_ns = 1_700_000_000 * S

    def live(self, readings: list[Reading], end: int) -> Said:
        """Let it all happen."""
        rng = self.rng
        for seq, reading in enumerate(readings):
            chance = rng.random()
            if chance < 0.04:
                self.restart()
            elif chance < 0.08:
                self.crash()
            elif chance < 0.14:
                self.kept = (self.engine.snapshot(), len(self.log), len(self.decisions))
            elif chance < 0.22:
                self.tick(rng.uniform(readings[seq - 1].second if seq else 0, reading.second))
            if rng.random() < 0.05:
                self.wall_ns += rng.choice([-1, 1]) * rng.randrange(10**9) * S
            self.take(self._batch(seq, reading))
        self.tick(end)
        return _said(self.decisions)

    def take(self, batch: Batch) -> None:
        """A record comes."""
        self.log.append(batch)
        self.decisions += self.engine.run(batch)

    def tick(self, second: float) -> None:
        """Time passes."""
        self.decisions += self.engine.tick(round(second * S))

    def restart(self) -> None:
        """The process ends in order."""
        snapshot = self.engine.snapshot()
        self.engine = Engine(self.ruleset)
        assert self.engine.restore(snapshot) == []

    def crash(self) -> None:
        """The process is killed: what is left is the snapshot, and the log. What is decided again, is the same."""
        snapshot, read, decided = self.kept
        self.engine = Engine(self.ruleset)
        assert self.engine.restore(snapshot) == []
        again = [decision for batch in self.log[read:] for decision in self.engine.run(batch)]
        before = self.decisions[decided:]
        # What a tick had brought after the last record comes again with the next one.
        assert again == before[: len(again)], "a replay decided otherwise"
        del self.decisions[decided + len(again) :]

    def _batch(self, seq: int, reading: Reading) -> Batch:
        now_ns = reading.second * S
        return Batch(
            kind=Kind.EVENTS,
            stamp=Stamp(self.wall_ns + now_ns, 0, now_ns, bytes(16), self.rng.random() < 0.8),
            topics=[f"d/{reading.key}/t"],
            formats=[1],
            flags=[reading.flags],
            payloads=[b""],
            values=[{"v": reading.value, "n": reading.name}],
            seq=seq,
        )


def _said(decisions: list[Decision]) -> Said:
    said: Said = defaultdict(list)
    for decision in decisions:
        action: Any = decision.action
        word = {"on": "begin", "off": "end"}[action.state] if isinstance(action, Command) else action.text
        said[decision.rule, decision.key].append((decision.elapsed_ns // S, word))
    return dict(said)


def divergence(seed: int, number: int) -> str:
    """Live one life; what the engine and the models do not agree upon, for a person. Empty if they do."""
    setup = random_setup(random.Random(f"{seed}/{number // LIVES_OF_A_SETUP}"))
    rng = random.Random(f"{seed}//{number}")
    readings = random_readings(rng)
    end = readings[-1].second + rng.randrange(60)
    expected = as_models_say(setup, readings, end)
    life = Life(_compiled(setup), rng)
    said = life.live(readings, end)
    ids = [decision.id for decision in life.decisions]
    where = f"life {number} of seed {seed}\n{rules_of(setup)}"
    if len(set(ids)) != len(ids):
        return f"{where}\nan id stands twice"
    for owner in sorted({*said, *expected}):
        if said.get(owner, []) != expected.get(owner, []):
            came = [(r.second, r.value, r.flags) for r in readings if r.key == owner[1]]
            return f"{where}\n{owner}\ncame:   {came}\nmodel:  {expected.get(owner)}\nengine: {said.get(owner)}"
    return ""


def divergences(seed: int, first: int, count: int) -> list[str]:
    """The first divergence of so many lives, or none. For a process of its own."""
    for number in range(first, first + count):
        if found := divergence(seed, number):
            return [found]
    return []
