"""A thermostat as one pure function of what it knew, what it has just read, and the time.

`decide` is called with every reading and at every deadline it asked for. It is level-triggered: each call looks at the
whole situation anew, so that a missed edge is mended at the next one, and the present command is repeated every
`reassert_ns` whether anything has happened or not.

Invariants (each a row in `tests/rules/test_thermostat_decides.py`, all of them against a reference model):
- It never starts what has not rested for `min_off_ns`, and never stops for comfort what has not run for `min_on_ns`.
- Off for safety (a silent sensor, `max_on_ns`) is never delayed by either.
- A reading that is no finite number is as no reading: it neither decides nor breaks the silence.
- `running` is None only before the first call, which always commands off, whatever the reading: what the actuator did
  before is unknown, and the rest that `min_off_ns` asks for is counted from here.
- From heat to cool and back it goes by way of off.
- The returned deadline is later than `now_ns`, and between two calls nothing is missed: a call without a reading before
  that deadline would say nothing.
"""

from __future__ import annotations

from typing import NamedTuple

OFF = "off"
HEAT = "heat"
COOL = "cool"


class Limits(NamedTuple):
    """What a thermostat is set to. Temperatures in the sensor's own unit, durations in nanoseconds."""

    stale_after_ns: int
    on_stale: str
    """`off`, `hold`, or `on` (`heat` or `cool`, whichever this thermostat has)."""
    heat_on_below: float | None = None
    heat_off_above: float | None = None
    cool_on_above: float | None = None
    cool_off_below: float | None = None
    min_on_ns: int = 0
    min_off_ns: int = 1_000_000_000
    """More than zero: what has been stopped is looked at again after it, not at once."""
    max_on_ns: int | None = None
    reassert_ns: int = 600_000_000_000


class State(NamedTuple):
    """All that a thermostat knows."""

    running: str | None = None
    """`off`, `heat`, `cool`; None before the first decision."""
    since_ns: int = 0
    """When `running` began."""
    asserted_ns: int = 0
    """When the command was last given or repeated."""
    reading: float | None = None
    """The latest good one."""
    read_ns: int = 0
    """When it came."""


class Verdict(NamedTuple):
    """What comes of one call."""

    state: State
    command: str | None
    """`off`, `heat` or `cool` to be sent now (a change or a repetition); None: nothing to send."""
    because: str
    """Why `command`, for a person. Empty if there is none."""
    deadline_ns: int
    """When to ask again at the latest."""


def decide(limits: Limits, state: State, reading: float | None, now_ns: int) -> Verdict:
    """One look at the situation.

    Args:
        limits: the settings.
        state: what the last call returned.
        reading: a finite number that has just come in; None: only time has passed, or what came was no number.
        now_ns: not before the last call's.

    Returns:
        The new state, what to send, and when to ask again.
    """
    if reading is not None:
        state = state._replace(reading=reading, read_ns=now_ns)
    if state.running is None:
        return _switch(limits, state, OFF, "at the start the actuator's state is unknown", now_ns)
    wanted, because, is_safety = _wanted(limits, state, now_ns)
    if wanted != state.running:
        step = OFF if state.running != OFF else wanted
        rest_ns = limits.min_on_ns if step == OFF else limits.min_off_ns
        if is_safety or now_ns >= state.since_ns + rest_ns:
            return _switch(limits, state, step, because, now_ns)
    if now_ns >= state.asserted_ns + limits.reassert_ns:
        state = state._replace(asserted_ns=now_ns)
        return Verdict(state, state.running, f"still {state.running}", _deadline(limits, state, now_ns))
    return Verdict(state, None, "", _deadline(limits, state, now_ns))


def is_stale(limits: Limits, state: State, now_ns: int) -> bool:
    """Whether the sensor has been silent for `stale_after_ns`, or has never spoken."""
    return state.reading is None or now_ns >= state.read_ns + limits.stale_after_ns


def _switch(limits: Limits, state: State, to: str, because: str, now_ns: int) -> Verdict:
    state = state._replace(running=to, since_ns=now_ns, asserted_ns=now_ns)
    return Verdict(state, to, because, _deadline(limits, state, now_ns))


def _wanted(limits: Limits, state: State, now_ns: int) -> tuple[str, str, bool]:
    """(what should run, why, whether safety asks for it)."""
    assert state.running is not None
    is_on = state.running != OFF
    if is_on and limits.max_on_ns is not None and now_ns >= state.since_ns + limits.max_on_ns:
        return OFF, f"it has run for max_on ({_minutes(limits.max_on_ns)})", True
    if is_stale(limits, state, now_ns):
        if limits.on_stale == "hold":
            return state.running, "", False
        silent = f"the sensor has been silent for {_minutes(limits.stale_after_ns)}"
        if limits.on_stale == OFF:
            return OFF, silent, True
        return (HEAT if limits.heat_on_below is not None else COOL), silent, False
    assert state.reading is not None
    return (*_comfort(limits, state.running, state.reading), False)


def _comfort(limits: Limits, running: str, reading: float) -> tuple[str, str]:
    """What the reading alone asks for, with the hysteresis of what is running."""
    if limits.heat_on_below is not None and limits.heat_off_above is not None:
        if reading < limits.heat_on_below:
            return HEAT, f"{reading:g} is below {limits.heat_on_below:g}"
        if running == HEAT:
            if reading <= limits.heat_off_above:
                return HEAT, ""
            return OFF, f"{reading:g} is above {limits.heat_off_above:g}"
    if limits.cool_on_above is not None and limits.cool_off_below is not None:
        if reading > limits.cool_on_above:
            return COOL, f"{reading:g} is above {limits.cool_on_above:g}"
        if running == COOL:
            if reading >= limits.cool_off_below:
                return COOL, ""
            return OFF, f"{reading:g} is below {limits.cool_off_below:g}"
    return OFF, ""


def _deadline(limits: Limits, state: State, now_ns: int) -> int:
    """The next moment at which `decide` could say something new without a reading."""
    moments = [state.asserted_ns + limits.reassert_ns]
    if state.reading is not None:
        moments.append(state.read_ns + limits.stale_after_ns)
    if state.running == OFF:
        moments.append(state.since_ns + limits.min_off_ns)
    else:
        moments.append(state.since_ns + limits.min_on_ns)
        if limits.max_on_ns is not None:
            moments.append(state.since_ns + limits.max_on_ns)
    return min(moment for moment in moments if moment > now_ns)


def _minutes(duration_ns: int) -> str:
    seconds = duration_ns / 1e9
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"
