"""A thermostat as one pure function of what it knew, what it has just heard, and the time.

`decide` is called with every piece of news and at every deadline it asked for. It is level-triggered: each call looks
at the whole situation anew, so that a missed edge is mended at the next one, and the present command is repeated every
`reassert_ns` whether anything has happened or not. `refuse` is called when a command has not done what it was to do.

Who has the last word, first to last: `max_on`, a silent sensor (`on_stale` off or on), an open window, a silent sensor
that holds, and then the set-points: those of `away`, of the timetable, or its own.

Invariants (each a row in `tests/rules/test_thermostat_decides.py`, all of them against a reference model):
- It never starts what has not rested for `min_off_ns`, and never stops for comfort what has not run for `min_on_ns`.
  An open window is comfort: what is lost meanwhile is a little warmth, what is protected is a compressor.
- Off for safety (a silent sensor, `max_on_ns`, a repeated `on` that was denied) is never delayed by either.
- A reading that is no finite number is as no reading: it neither decides nor breaks the silence.
- `running` is None only before the first call, which always commands off, whatever the reading: what the actuator did
  before is unknown, and the rest that `min_off_ns` asks for is counted from here.
- From heat to cool and back it goes by way of off.
- An `on` that was refused is not believed: see `refuse`.
- A window of which nothing is known, or nothing any more, is as closed.
- The returned deadline is later than `now_ns`, and between two calls nothing is missed: a call without news before
  that deadline would say nothing.
- What it remembers is bounded, however fast the sensor speaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.rules.machines.machine import duration
from gateway.rules.thermostat_rule import AWAY, COOL, HEAT, OFF

if TYPE_CHECKING:
    from gateway.rules.thermostat_rule import Contact, Fall, Limits, Setpoints

RETRY_NS = 30_000_000_000
"""How long to wait after a first refusal. It doubles with each further one, up to `reassert_ns`."""
_MOST_DOUBLINGS = 30
_HIGHS = 60
"""In how many steps the time within which a fall counts is told apart."""


class Window(NamedTuple):
    """What is known of a contact."""

    is_open: bool = False
    """False as well if nothing is known."""
    turned_ns: int = 0
    """Since when."""
    heard_ns: int = 0
    """When it last said so."""
    pauses: bool = False
    """Whether it keeps the thermostat off."""


class State(NamedTuple):
    """All that a thermostat knows. `begin` makes the first."""

    running: str | None = None
    """`off`, `heat`, `cool`; None before the first decision."""
    since_ns: int = 0
    """When `running` began; of `off`, since when it rests."""
    asserted_ns: int = 0
    """When the command was last given or repeated."""
    reading: float | None = None
    """The latest good one."""
    read_ns: int = 0
    """When it came."""
    rested_ns: int = 0
    """While it runs: since when it had rested before."""
    refusals: int = 0
    """How often in a row its commands have been refused."""
    barred_ns: int = 0
    """Nothing starts before, because the last start was refused; 0: none was."""
    again_ns: int = 0
    """When to repeat a command that was refused; 0: none was."""
    is_away: bool = False
    windows: tuple[Window, ...] = ()
    """One for each of `Limits.contacts`."""
    highs: tuple[tuple[int, float], ...] = ()
    """(when, reading): the highest within `Fall.within_ns`, then the highest after that, and so on. Falling."""
    fallen_until_ns: int = 0
    """Until when a fast fall keeps it off."""
    in_force: str = ""
    """`Setpoints.name` of those that were looked at last."""
    obstacle: str = ""
    """What stood in the way at the last look: `cooling`, `held`, `stale`, `window`, or nothing."""


class News(NamedTuple):
    """What one call brings. Nothing of it: only time has passed."""

    reading: float | None = None
    """A finite number that has just come in."""
    window: tuple[int, bool] | None = None
    """(number of the contact, whether it is open)."""
    is_away: bool | None = None
    setpoints: Setpoints | None = None
    """Those of the timetable, to be given with every call; None: the base holds, or the time is not known."""


class Verdict(NamedTuple):
    """What comes of one call."""

    state: State
    command: str | None
    """`off`, `heat` or `cool` to be sent now (a change or a repetition); None: nothing to send."""
    because: str
    """Why `command`, for a person. Empty if there is none."""
    deadline_ns: int
    """When to ask again at the latest."""
    notes: tuple[tuple[str, str], ...] = ()
    """Changes and near misses: (what, one sentence), in the words of `gateway.rules.trace`. Each once, as it begins."""


class _Wish(NamedTuple):
    running: str
    because: str = ""
    kind: str = ""
    """`max_on`, `stale` or `window`: what overrules the set-points."""
    is_safety: bool = False


def begin(limits: Limits) -> State:
    """What is known before anything is."""
    return State(windows=(Window(),) * len(limits.contacts))


def decide(limits: Limits, state: State, news: News, now_ns: int) -> Verdict:
    """One look at the situation.

    Args:
        limits: the settings.
        state: what the last call returned, or `begin`.
        news: what has just been heard.
        now_ns: not before the last call's.

    Returns:
        The new state, what to send, and when to ask again.
    """
    state = _hear(limits, state, news, now_ns)
    setpoints = limits.away if state.is_away and limits.away is not None else news.setpoints or limits.base
    notes: tuple[tuple[str, str], ...] = ()
    if setpoints.name != state.in_force:
        what = AWAY if AWAY in {setpoints.name, state.in_force} else "schedule"
        notes = ((what, setpoints.describe()),)
        state = state._replace(in_force=setpoints.name)
    if state.running is None:
        return _switch(limits, state, _Wish(OFF, "at the start the actuator's state is unknown"), now_ns, notes)
    wish = _wish(limits, state, setpoints, now_ns)
    obstacle = wish.kind
    if wish.running != state.running:
        step = wish._replace(running=OFF) if state.running != OFF else wish
        earliest_ns = state.since_ns + (limits.min_on_ns if step.running == OFF else limits.min_off_ns)
        if step.running != OFF:
            earliest_ns = max(earliest_ns, state.barred_ns)
        if wish.is_safety or now_ns >= earliest_ns:
            return _switch(limits, state, step, now_ns, notes)
        obstacle = "held" if step.running == OFF else "cooling"
        if obstacle != state.obstacle:
            notes += ((obstacle, f"{wish.because}; not for another {duration(earliest_ns - now_ns)}"),)
    elif obstacle and obstacle != state.obstacle:
        notes += ((obstacle, wish.because),)
    if obstacle != state.obstacle:
        state = state._replace(obstacle=obstacle)
    if now_ns >= _repeat_ns(limits, state):
        state = state._replace(asserted_ns=now_ns, again_ns=0)
        return Verdict(state, state.running, f"still {state.running}", _deadline(limits, state, now_ns), notes)
    return Verdict(state, None, "", _deadline(limits, state, now_ns), notes)


def refuse(limits: Limits, state: State, outcome: str, *, was_on: bool, is_first: bool, now_ns: int) -> Verdict:
    """A command of the latest `asserted_ns` has not done what it was to do.

    - An `on` that was denied, or a first one that expired: it is off again. A first one never ran, so that the rest
      goes on from where it was; a repeated one may have, so that the rest begins now. Off is sent, for nobody can be
      sure, and nothing starts for 30 s, doubling with each refusal up to `reassert_ns`.
    - An `off` that expired has never left: it is said at once, and the rest begins now.
    - Anything else (nobody confirmed it; a repetition expired): what runs is believed to run, and the command is
      repeated after the same time.

    Args:
        limits: the settings.
        state: what the last call returned. It has begun.
        outcome: `denied`, `expired` or `unconfirmed`.
        was_on: whether the command was to switch something on.
        is_first: whether it was the first such command, not a repetition.
        now_ns: not before the last call's.

    Returns:
        As `decide`.
    """
    assert state.running is not None, "nothing has been commanded yet"
    what = "on" if was_on else "off"
    if not was_on and state.running == OFF and outcome == "expired":
        since_ns = now_ns if is_first else state.since_ns
        state = state._replace(since_ns=since_ns, asserted_ns=now_ns, again_ns=0)
        because = "`off` was not sent in time"
        return Verdict(state, OFF, because, _deadline(limits, state, now_ns), (("refused", because),))
    wait_ns = max(min(RETRY_NS << min(state.refusals, _MOST_DOUBLINGS), limits.reassert_ns), RETRY_NS)
    state = state._replace(refusals=state.refusals + 1)
    if was_on and state.running != OFF and (outcome == "denied" or (outcome == "expired" and is_first)):
        state = state._replace(
            running=OFF,
            since_ns=state.rested_ns if is_first else now_ns,
            asserted_ns=now_ns,
            barred_ns=now_ns + wait_ns,
            again_ns=0,
        )
        detail = f"`on` was {outcome}: off, and no new start for {duration(wait_ns)}"
        because = f"`on` was {outcome}: nobody knows whether it is on"
        return Verdict(state, OFF, because, _deadline(limits, state, now_ns), (("refused", detail),))
    state = state._replace(again_ns=now_ns + wait_ns)
    detail = f"`{what}` was {outcome}: said again in {duration(wait_ns)}"
    return Verdict(state, None, "", _deadline(limits, state, now_ns), (("refused", detail),))


def is_stale(limits: Limits, state: State, now_ns: int) -> bool:
    """Whether the sensor has been silent for `stale_after_ns`, or has never spoken."""
    return state.reading is None or now_ns >= state.read_ns + limits.stale_after_ns


def _hear(limits: Limits, state: State, news: News, now_ns: int) -> State:
    """Take in the news, and what the time has made of what was known of the windows."""
    if news.reading is not None:
        state = state._replace(reading=news.reading, read_ns=now_ns)
        if limits.fall is not None:
            state = _watch_fall(limits.fall, state, news.reading, now_ns)
    if news.is_away is not None and news.is_away is not state.is_away:
        state = state._replace(is_away=news.is_away)
    if limits.contacts:
        number, heard = news.window or (-1, None)
        pairs = enumerate(zip(limits.contacts, state.windows, strict=True))
        windows = (
            _look_at(contact, pane, now_ns, heard=heard if n == number else None) for n, (contact, pane) in pairs
        )
        state = state._replace(windows=tuple(windows))
    return state


def _look_at(contact: Contact, window: Window, now_ns: int, *, heard: bool | None) -> Window:
    """What is known of a window now. A silence ends at its own time, before anything that was just heard."""
    is_open, turned_ns, heard_ns, pauses = window
    if is_open and contact.stale_after_ns is not None and now_ns >= heard_ns + contact.stale_after_ns:
        is_open, turned_ns = False, heard_ns + contact.stale_after_ns
    if heard is not None:
        if heard is not is_open:
            turned_ns = now_ns
        is_open, heard_ns = heard, now_ns
    if now_ns >= turned_ns + (contact.for_ns if is_open else contact.resume_after_ns):
        pauses = is_open
    return Window(is_open, turned_ns, heard_ns, pauses)


def _watch_fall(fall: Fall, state: State, reading: float, now_ns: int) -> State:
    """Compare a reading with the highest of late. After a fall the comparison begins anew, so that it may go on."""
    highs = [high for high in state.highs if high[0] >= now_ns - fall.within_ns]
    if highs and highs[0][1] - reading >= fall.drop:
        return state._replace(highs=((now_ns, reading),), fallen_until_ns=now_ns + fall.pause_ns)
    while highs and highs[-1][1] <= reading:
        del highs[-1]
    if not highs or now_ns - highs[-1][0] >= fall.within_ns // _HIGHS:
        highs.append((now_ns, reading))
    return state._replace(highs=tuple(highs))


def _switch(limits: Limits, state: State, to: _Wish, now_ns: int, notes: tuple[tuple[str, str], ...]) -> Verdict:
    if to.running == OFF:
        what = to.kind or "ended"
        state = state._replace(running=OFF, since_ns=now_ns, refusals=0, barred_ns=0)
    else:
        what = "fired"
        # A start that follows a refused one is still the same attempt.
        refusals = state.refusals if state.barred_ns else 0
        state = state._replace(running=to.running, since_ns=now_ns, rested_ns=state.since_ns, refusals=refusals)
    obstacle = to.kind if to.running == OFF and to.kind != "max_on" else ""
    state = state._replace(asserted_ns=now_ns, again_ns=0, obstacle=obstacle)
    notes += ((what, to.because),)
    return Verdict(state, to.running, to.because, _deadline(limits, state, now_ns), notes)


def _wish(limits: Limits, state: State, setpoints: Setpoints, now_ns: int) -> _Wish:
    """What should run, and why."""
    assert state.running is not None, "asked by whoever calls"
    if state.running != OFF and limits.max_on_ns is not None and now_ns >= state.since_ns + limits.max_on_ns:
        return _Wish(OFF, f"it has run for max_on ({duration(limits.max_on_ns)})", "max_on", is_safety=True)
    stale, silent = is_stale(limits, state, now_ns), ""
    if stale:
        long = f"has been silent for {duration(limits.stale_after_ns)}"
        silent = f"the sensor {'has not spoken yet' if state.reading is None else long}"
    if stale and limits.on_stale != "hold":
        if limits.on_stale == OFF:
            return _Wish(OFF, silent, "stale", is_safety=True)
        return _Wish(HEAT if limits.base.heat_on_below is not None else COOL, silent, "stale")
    open_window = _open_window(limits, state, now_ns)
    if open_window:
        return _Wish(OFF, open_window, "window")
    if stale:
        return _Wish(state.running, f"{silent}: {state.running} is held", "stale")
    assert state.reading is not None, "or it would be stale"
    return _comfort(setpoints, state.running, state.reading)


def _open_window(limits: Limits, state: State, now_ns: int) -> str:
    """Which window keeps it off, for a person; empty: none."""
    for contact, window in zip(limits.contacts, state.windows, strict=True):
        if window.pauses:
            return f"the window `{contact.name}` {'is open' if window.is_open else 'has only just been closed'}"
    if limits.fall is not None and now_ns < state.fallen_until_ns:
        return f"the reading fell by {limits.fall.drop:g} within {duration(limits.fall.within_ns)}: a window is open"
    return ""


def _comfort(setpoints: Setpoints, running: str, reading: float) -> _Wish:
    """What the reading alone asks for, with the hysteresis of what is running."""
    heat_on_below, heat_off_above, cool_on_above, cool_off_below, name = setpoints
    when = f" ({name})" if name else ""
    if heat_on_below is not None and heat_off_above is not None:
        if reading < heat_on_below:
            return _Wish(HEAT, f"{reading:g} is below {heat_on_below:g}{when}")
        if running == HEAT:
            if reading <= heat_off_above:
                return _Wish(HEAT)
            return _Wish(OFF, f"{reading:g} is above {heat_off_above:g}{when}")
    if cool_on_above is not None and cool_off_below is not None:
        if reading > cool_on_above:
            return _Wish(COOL, f"{reading:g} is above {cool_on_above:g}{when}")
        if running == COOL:
            if reading >= cool_off_below:
                return _Wish(COOL)
            return _Wish(OFF, f"{reading:g} is below {cool_off_below:g}{when}")
    return _Wish(OFF)


def _repeat_ns(limits: Limits, state: State) -> int:
    """When the present command is to be said again."""
    repeat_ns = state.asserted_ns + limits.reassert_ns
    return min(repeat_ns, state.again_ns) if state.again_ns else repeat_ns


def _deadline(limits: Limits, state: State, now_ns: int) -> int:
    """The next moment at which `decide` could say something new without news."""
    moments = [_repeat_ns(limits, state), state.barred_ns, state.fallen_until_ns]
    if state.reading is not None:
        moments.append(state.read_ns + limits.stale_after_ns)
    if state.running == OFF:
        moments.append(state.since_ns + limits.min_off_ns)
    else:
        moments.append(state.since_ns + limits.min_on_ns)
        if limits.max_on_ns is not None:
            moments.append(state.since_ns + limits.max_on_ns)
    for contact, window in zip(limits.contacts, state.windows, strict=True):
        moments.append(window.turned_ns + (contact.for_ns if window.is_open else contact.resume_after_ns))
        if window.is_open and contact.stale_after_ns is not None:
            moments.append(window.heard_ns + contact.stale_after_ns)
    return min(moment for moment in moments if moment > now_ns)
