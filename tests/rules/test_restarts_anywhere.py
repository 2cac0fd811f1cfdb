"""L12: a process may end at any instant, in a `for`, in a wait, while a command waits for its answer: it shows nowhere.

Each life is lived twice. In one of them the process ends at one of 200 instants: in order (with a snapshot) or not (an
older snapshot is left, and the log behind it). Decisions and their ids are the same, and so is the state at the end.
"""

from __future__ import annotations

import pytest

from gateway.model import ActuatorLimits, Batch, Command, Decision, Kind, Outcome, Stamp
from gateway.rules.engine import Engine
from tests.act.lives import HEATER, REPORT, Lives
from tests.rules.traced import WALL_S, Traced

POINTS = 200
RULES = """
    rules:
      - id: hold
        on: d/{device}/t
        when: avg(t, 30s) > 20 and device("outdoor", 5m).t < 30
        for: 2m
        until: t < 15
        keep_for: 20s
        cooldown: 1m
        stale_after: 50s
        on_stale: "off"
        then:
          - command: {topic: "d/{device}/fan", payload: "ON", state: "on"}
          - wait: 25s
          - notify: {to: x, text: '{device} {avg(t, 30s):.3f} {var("n")}'}
        finally: [{command: {topic: "d/{device}/fan", payload: "OFF", state: "off"}}]
      - id: steps
        on: d/a/t
        mode: queued
        max: 3
        most_per_minute: 5
        then:
          - set: {n: "{t}"}
          - wait: 41s
          - notify: {to: x, text: '{t} {var("n")}'}
          - wait: 7s
          - emit: {topic: done, payload: {t: "{t}", c: "{count(1m)}"}}
      - id: gone
        on: {topic: "d/{device}/t", silent: 55s}
        then: [{notify: {to: x, text: "{device} gone"}}]
        finally: [{notify: {to: x, text: "{device} back"}}]
      - id: crossed
        on: {topic: "d/{device}/t", field: t, above: 24}
        for: 9s
        after: {on: "d/{device}/door"}
        within: 2m
        then: [{notify: {to: x, text: "{device} crossed"}}]
      - {id: beat, on: {every: 37s}, then: [{notify: {to: x, text: beat}}]}
      - {id: daily, on: {cron: "*/3 * * * *"}, then: [{notify: {to: x, text: cron}}]}
      - {id: unheard, on: {topic: never, silent: 4m, also_on_start: true}, then: [{notify: {to: x, text: never}}]}
"""
END_S = 600


def _readings():
    """Ten minutes of two devices, a silence in each, and the weather."""
    for second in range(0, END_S, 11):
        if not 300 < second < 380:
            yield second, "d/a/t", {"t": 10 + 17 * ((second // 90) % 2) + second % 7 / 7}
        if second % 3 == 0 and not 100 < second < 170:
            yield second + 0.25, "d/b/t", {"t": 23 + second % 5}
        if second % 44 == 0:
            yield second + 0.5, "devices/outdoor/air", {"t": second / 20}
            yield second + 0.5, "d/a/door", None


def _tell(rules, second, topic, value):
    """One record. The wall clock is a little off each time, since two clocks are read one after the other."""
    rules.wall_s = WALL_S + round(second * 7919) % 13 / 1_000
    rules.event(second, topic, value)


def _continuous(ruleset):
    rules = Traced(ruleset)
    for record in _readings():
        _tell(rules, *record)
    rules.tick(END_S)
    return rules


def test_a_restart_in_order_at_any_of_200_instants_shows_in_nothing(load):
    """A snapshot, and a process that takes it up; with ticks before and after."""
    ruleset = load(RULES)
    expected = _continuous(ruleset)
    assert {d.rule for d in expected.decisions} == {rule.id for rule in ruleset.rules}
    for point in range(POINTS):
        end_s = (point + 0.5) * END_S / POINTS
        rules, is_over = Traced(ruleset), False
        for record in _readings():
            if record[0] >= end_s and not is_over:
                is_over = True
                rules.tick(end_s)
                rules.restart()
            _tell(rules, *record)
        rules.tick(END_S)
        assert rules.decisions == expected.decisions, end_s
        assert rules.engine.snapshot() == expected.engine.snapshot(), end_s


def test_downtime_at_any_of_200_instants_shows_in_nothing(load):
    """What fell due while nobody was there is decided at its own time, by whoever reads on."""
    ruleset = load(RULES)
    expected = _continuous(ruleset)
    records = list(_readings())
    for point in range(POINTS):
        cut = point * len(records) // POINTS
        rules = Traced(ruleset)
        for number, record in enumerate(records):
            if number == cut:
                rules.restart()
            _tell(rules, *record)
        rules.restart()
        rules.tick(END_S)
        assert rules.decisions == expected.decisions, cut
        assert rules.engine.snapshot() == expected.engine.snapshot(), cut


def test_a_kill_at_any_of_200_instants_decides_the_same_again(load, seed):
    """An older snapshot and the log behind it give the same decisions, ids included, and the same state."""
    ruleset = load(RULES)
    expected = _continuous(ruleset)
    records = list(_readings())
    for point in range(POINTS):
        killed_s = (point + 0.5) * END_S / POINTS
        kept_s = killed_s * (seed % 97) / 97
        rules = Traced(ruleset)
        kept, seq, decided = rules.engine.snapshot(), 0, 0
        before = [record for record in records if record[0] < killed_s]
        for number, record in enumerate(before):
            _tell(rules, *record)
            if record[0] <= kept_s:
                kept, seq, decided = rules.engine.snapshot(), number + 1, len(rules.decisions)
        rules.tick(killed_s)
        first = rules.decisions
        rules.engine, rules.seq, rules.decisions = Engine(ruleset), seq, first[:decided]
        assert rules.engine.restore(kept) == []
        for record in records[seq:]:
            _tell(rules, *record)
        rules.tick(END_S)
        assert rules.decisions == expected.decisions, (kept_s, killed_s)
        assert first == expected.decisions[: len(first)]
        assert rules.engine.snapshot() == expected.engine.snapshot()


HEATING = """
    rules:
      - id: heat
        on: t
        when: value < 10
        stale_after: 10m
        on_stale: "off"
        then:
          - command:
              topic: devices/a/heater/set
              payload: {s: "ON"}
              state: "on"
              expect: {topic: devices/a/heater/state, where: value == wanted, within: 5s, retries: 3}
              otherwise: [{notify: {to: oncall, text: no answer}}]
        finally:
          - command: {topic: devices/a/heater/set, payload: {s: "OFF"}, state: "off"}
"""
_NOT_DONE = {"denied", "expired", "unconfirmed"}


class House(Lives):
    """The engine before the act stage, both over one log."""

    def __init__(self, ruleset):
        self.ruleset = ruleset
        self.engine = Engine(ruleset)
        self.journal: list[tuple[int, str, object] | tuple[int, Decision | Outcome]] = []
        """Events and records in the order in which they were appended."""
        self.heard = 0
        self.kept = (self.engine.snapshot(), 0)
        super().__init__(ActuatorLimits(safe=Command(HEATER, b'{"s":"OFF"}', "off")))

    def event(self, topic, value):
        """A device speaks."""
        self.journal.append((self.now_ns, topic, value))
        if topic == REPORT:
            self.report(value)
        self.think()

    def live(self, until_s, step_s=0.5):
        """Let time pass."""
        while self.now_s < until_s:
            self.advance(step_s, step_s=step_s)
            self.think()

    def think(self):
        """The engine reads what is new in the log, and time has passed for it."""
        decisions = []
        while self.heard < len(self.journal):
            at_ns, *what = self.journal[self.heard]
            kind = Kind.EVENTS if len(what) == 2 else Kind.DECISIONS
            stamp = Stamp(at_ns, at_ns, at_ns, bytes(16), True)
            topic, value = what if kind is Kind.EVENTS else ("", None)
            decisions += self.engine.run(Batch(kind, stamp, [topic], [1], [1], [b""], [value], seq=self.heard))
            self.heard += 1
            if isinstance(what[0], Outcome) and what[0].state in _NOT_DONE:
                decisions += self.engine.refused(what[0].decision_id, what[0].state, at_ns)
        self.say(decisions + self.engine.tick(self.now_ns))

    def say(self, decisions):
        """Log what the log does not hold yet, and carry it out."""
        logged = {record.id for record, _, _ in self.log if isinstance(record, Decision)}
        missing = [decision for decision in decisions if decision.id not in logged]
        if missing:
            self._record(missing)
            self.read()

    def kill(self):
        """End without a word, and begin again."""
        self.crash()
        self.engine = Engine(self.ruleset)
        snapshot, self.heard = self.kept
        assert self.engine.restore(snapshot) == []
        self.begin()
        self.think()

    def _record(self, records):
        super()._record(records)
        self.journal += [(self.now_ns, record) for record in records]


def _heat(ruleset, killed_s, answered_s, *, keep_s=12.0, starts=False):
    house = House(ruleset)
    house.live(5)
    house.event("t", 20)
    house.live(10)
    house.event("t", 5)
    moments = [(keep_s, "keep"), (killed_s, "kill"), (answered_s, "answer")]
    for moment, what in sorted((moment, what) for moment, what in moments if moment is not None):
        house.live(moment, step_s=0.1)
        if what == "keep":
            house.kept = (house.engine.snapshot(), house.heard)
        elif what == "kill":
            house.kill()
            if starts:
                house.say(house.engine.start(house.now_ns))
        else:
            house.event(REPORT, {"s": "ON"})
    house.live(60)
    return house


def _decided(house):
    """The engine's own; what act says instead of an answer has an id of the command's and an end."""
    found = [record for record, _, _ in house.log if isinstance(record, Decision)]
    return [each for each in found if isinstance(each.action, Command)]


@pytest.mark.parametrize(
    ("answered_s", "end"), [(None, "unconfirmed"), (17.05, "confirmed")], ids=["no answer", "an answer"]
)
def test_a_kill_at_any_of_200_instants_of_a_commands_wait_decides_the_same(load, answered_s, end):
    """L12, L3: the same decisions; each command has one end, and it is the same; tries begin anew, once."""
    ruleset = load(HEATING)
    expected = _heat(ruleset, None, answered_s)
    (wanted,) = _decided(expected)
    assert expected.end_of(wanted)[-1] == end
    for point in range(POINTS):
        house = _heat(ruleset, 10 + (point + 0.5) / 10, answered_s, keep_s=[3.0, 10.0, 12.0][point % 3])
        assert _decided(house) == [wanted], point
        ends = [state for state in house.end_of(wanted) if state != "sent"]
        assert ends == [end], (point, ends)
        assert len(house.sent) <= len(expected.sent) + 4, point
        assert house.told == expected.told, point


def test_a_start_after_a_kill_says_what_is_wanted_once_and_every_command_ends(load):
    """R6: the actuator is told once more; whatever waited is superseded or answered, never forgotten."""
    ruleset = load(HEATING)
    for point in range(0, POINTS, 8):
        house = _heat(ruleset, 10 + (point + 0.5) / 10, None, starts=True)
        decided = _decided(house)
        assert len(decided) == 2, point
        assert decided[1].id.endswith("/start-1")
        for decision in decided:
            assert len([state for state in house.end_of(decision) if state != "sent"]) == 1, (point, decision.id)
        assert house.sent[-1][1] == '{"s":"on"}'
