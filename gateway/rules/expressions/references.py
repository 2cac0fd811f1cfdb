"""What an expression may name beside the event: windows over past events, other devices, variables.

`grammar` finds references in a text and puts a field of that very text in their place; a machine computes them before
it evaluates, and hands them over as such fields. So an expression stays a function of a mapping, whatever it reaches.

Invariants:
- A reference that has no value, or whose value is too old, is unknown.
- No payload can pretend to be a reference: what the machine computes replaces a field of the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.rules.expressions.windows import Span

if TYPE_CHECKING:
    from gateway.rules.expressions.nodes import Node


class WindowReference(NamedTuple):
    """`avg(temperature, 5m)`: over the events of this rule with the same captured levels."""

    text: str
    """As written: the name of the field that stands for it."""
    function: str
    argument: Node | None
    """What each event adds; None: the event itself (`count(5m)`)."""
    span: Span


class LatestReference(NamedTuple):
    """`latest("devices/{device}/door", 30m).open`: the latest value that came on a topic."""

    text: str
    topic: str
    """With this rule's captures, if any."""
    path: tuple[str | int, ...]
    age_ns: int | None
    """How old it may be; None: the rule's `stale_after`."""


class DeviceReference(NamedTuple):
    """`device("outdoor", 30m).temperature`: the latest value that came from a device, on any of its topics."""

    text: str
    device: str
    path: tuple[str | int, ...]
    age_ns: int | None


class VariableReference(NamedTuple):
    """`var("party")`: what a rule has `set`."""

    text: str
    name: str


Reference: TypeAlias = WindowReference | LatestReference | DeviceReference | VariableReference

__all__ = ["DeviceReference", "LatestReference", "Reference", "Span", "VariableReference", "WindowReference"]
