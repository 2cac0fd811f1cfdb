"""Scripts to both brokers, step by step, and what came of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from tests.mqtt.differential.compare import AT_THE_END, Heard, Moment
from tests.mqtt.differential.explanations import EXPLANATIONS, Ends, Explanation
from tests.mqtt.differential.play import Player, Seen, barrier, play
from tests.mqtt.differential.scripts import Step
from tests.mqtt.differential.story import Story

if TYPE_CHECKING:
    from tests.mqtt.differential.scripts import Script


class UnexplainedError(AssertionError):
    """The two differ, and nothing says why."""


@dataclasses.dataclass
class Counts:
    """What was done."""

    scripts: int = 0
    ended_early: int = 0
    """Of these: not compared to the end."""
    steps: int = 0
    packets: int = 0
    """Sent to each broker by steps, acknowledgements not counted."""
    bent: int = 0
    compared: int = 0
    """Packets and closed connections of the listener that were held beside mosquitto's."""
    explained: Counter[str] = dataclasses.field(default_factory=Counter)

    def __str__(self) -> str:
        rows = (f"  {self.explained[each.name]:7,}  {each.name} [{each.clause}]" for each in EXPLANATIONS)
        return "\n".join((self.summary, *rows))

    @property
    def summary(self) -> str:
        """The counts in one line."""
        return (
            f"{self.scripts:,} sequences ({self.ended_early:,} not compared to their end), {self.steps:,} steps, "
            f"{self.packets:,} packets sent to each ({self.bent:,} bent), {self.compared:,} replies compared, "
            f"{self.explained.total():,} differences, all explained"
        )

    def never_met(self) -> list[str]:
        """Explanations of what did not happen."""
        return [each.name for each in EXPLANATIONS if not self.explained[each.name]]


class Duel:
    """The two brokers, one beside the other."""

    def __init__(self, ours: int, mosquitto: int) -> None:
        self.players = (Player(ours), Player(mosquitto))
        self.counts = Counts()

    def close(self) -> None:
        """Close what is open to them."""
        for player in self.players:
            player.close()

    def play(self, script: Script) -> None:
        """Play a script to both until it ends, or until a difference has made them incomparable.

        Raises:
            UnexplainedError: they differ.
        """
        self.counts.scripts += 1
        story = Story()
        try:
            is_over = any(self._step(script, at, step, story) for at, step in enumerate(script.steps))
        finally:
            for player in self.players:
                player.end(script)
            barrier(self.players)
            kept = [player.sweep() for player in self.players]
            barrier(self.players)
        self.counts.ended_early += is_over
        if not is_over:
            at = len(script.steps) - 1
            self._compare(script, at, Step(AT_THE_END), story, [{AT_THE_END: one} for one in kept])

    def _step(self, script: Script, at: int, step: Step, story: Story) -> bool:
        """Play one step to both. Whether they cannot be compared any more."""
        seen = play(self.players, step)
        if seen is None:
            return False
        self.counts.steps += 1
        self.counts.packets += bool(step.data) or step.late is not None
        self.counts.bent += step.bent
        return self._compare(script, at, step, story, seen)

    def _compare(self, script: Script, at: int, step: Step, story: Story, seen: list[Seen]) -> bool:
        """Whether the two cannot be compared any more."""
        ours, theirs = seen
        said = story.said(step)
        story.before(step, said)
        # Who acts comes first: what happens to the others may follow from that.
        names = sorted(ours.keys() | theirs.keys(), key=lambda name: (name != step.client, name))
        is_over = False
        for name in names:
            heard = [Heard.of(one.get(name, ())) for one in seen]
            moment = Moment(step, said, name, name == step.client, *heard, story)
            used = explain(moment)
            if used is None:
                raise UnexplainedError(_report(script, at, name, *heard))
            self.counts.compared += len(ours.get(name, ()))
            self.counts.explained.update(each.name for each in used)
            acks = story.client(name).acks
            if any(each.ends is Ends.ALWAYS or (each.ends is not Ends.NOT and not acks) for each in used):
                is_over = True
                break
        story.after(step, said, ours.get(step.client, []))
        return is_over


def explain(moment: Moment) -> list[Explanation] | None:
    """What accounts for all that differs; None if something is left."""
    used: list[Explanation] = []
    for each in EXPLANATIONS:
        if moment.ours == moment.theirs:
            break
        rewritten = each.rewrite(moment)
        if rewritten is not None and rewritten != moment.theirs:
            used.append(each)
            moment = dataclasses.replace(moment, theirs=rewritten)
    return used if moment.ours == moment.theirs else None


def _report(script: Script, at: int, name: str, ours: Heard, theirs: Heard) -> str:
    return f"script {script.name}, step {at}, {name}:\n{script.until(at)}\nours:      {ours}\nmosquitto: {theirs}"
