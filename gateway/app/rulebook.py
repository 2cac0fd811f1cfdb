"""Which rules decide: told to the log at the start and at each change, read anew when asked.

Invariants:
- A reload is all or nothing: with one problem in any file the former rules go on, untouched.
- Rules that are the same keep their state and their timers; what a rule that goes had switched on is switched off.
- The log says which rules decided from where on, and what the clocks showed then, so that a replay can know (L12).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.config.loader import load
from gateway.errors import ConfigError
from gateway.model import OPERATOR, Decision, Set
from gateway.observe import events
from gateway.rules.reading.language import load_configured

if TYPE_CHECKING:
    from gateway.act.interlock import Interlock
    from gateway.app.journal import Journal
    from gateway.config.settings import Settings
    from gateway.model import Value
    from gateway.ringlog import Store
    from gateway.rules.compiled import RuleSet
    from gateway.rules.stage import RulesStage

_LOOK_AT_CLOCK_S = 10.0


class Rulebook:
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        stage: RulesStage,
        interlock: Interlock,
        journal: Journal,
        store: Store,
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._interlock = interlock
        self._journal = journal
        self._log = store.events
        self._committer = store.committer
        self._one_at_a_time = asyncio.Lock()

    @property
    def rules(self) -> RuleSet:
        """Those that decide now."""
        return self._stage.engine.ruleset

    def keeps_last(self, topic: str) -> bool:
        """Whether an actuator there is on or off, so that a device that was away is told the last word."""
        limits = self.rules.actuators.get(topic)
        return limits is not None and limits.safe is not None

    def begin(self) -> None:
        """Tell the log which rules decide from here on."""
        self._journal.mark("started", self.rules.fingerprints)

    async def reload(self) -> list[str]:
        """Read the files that the configuration names by now, and go on with what they say.

        Returns:
            One sentence for each rule whose state was dropped.

        Raises:
            ConfigError: something is wrong with the files; nothing has changed.
            StorageError: the log has failed.
        """
        async with self._one_at_a_time:
            try:
                rules = await asyncio.to_thread(_read, self._settings)
            except ConfigError as error:
                events.rules_refused(problems=error.problems)
                raise
            self._interlock.learn(rules.actuators)
            dropped = await self._stage.reload(rules)
            self._journal.mark("reloaded", rules.fingerprints)
            events.rules_reloaded(rules=len(rules.everyone), dropped=dropped)
            return dropped

    async def set_variables(self, values: dict[str, Value]) -> None:
        """Give variables of the rules values, by way of the log. Durable when this returns.

        Raises:
            StorageError: the log has failed.
        """
        now_ns = self._log.elapsed_ns()
        self._journal.record(
            [
                Decision(f"{OPERATOR}//{now_ns}/{number}", OPERATOR, "", Set(name, value), now_ns, None, "set by hand")
                for number, (name, value) in enumerate(values.items())
            ]
        )
        await self._committer.run(_nothing)

    async def watch_clock(self) -> None:
        """Tell the log that the wall clock has become known or has jumped, if a schedule waits for that. For ever."""
        while True:
            if self._stage.engine.waits_for(self._log.stamp()):
                self._journal.mark("clock", self.rules.fingerprints)
            await asyncio.sleep(_LOOK_AT_CLOCK_S)


def _nothing() -> None:
    """A task that only waits for its turn, behind everything that was appended before it."""


def _read(settings: Settings) -> RuleSet:
    files = settings.rules if settings.path is None else load(settings.path).settings.rules
    return load_configured(replace(settings, rules=files))
