"""What a rule does, compiled: given an event's fields, each plan renders one action of the vocabulary.

Invariants:
- Rendering is total: it gives an action for whatever the event holds, and never raises.
- A plan whose texts are all constant renders the same object every time.
- Where a message goes depends on the rule and on captured topic levels alone (`template.compile_topic`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from gateway.model import Action, Command, Emit, Expect, Notify, Publish, Set
from gateway.rules.expressions.template import Template, compile_template

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gateway.rules.expressions.expression import Expression

_encode = msgspec.json.Encoder().encode

Shape: TypeAlias = "Template | dict[str, Shape] | list[Shape] | bool | int | float | str | None"
"""A payload with its texts compiled; a text without braces stays a str."""


def compile_shape(plain: Any, captures: Collection[str]) -> Shape:
    """Compile the texts within a payload.

    Raises:
        ExpressionError: in one of them.
    """
    if isinstance(plain, str):
        template = compile_template(plain, captures, beyond=True)
        return template.text({}, {}) if template.constant else template
    if isinstance(plain, dict):
        return {key: compile_shape(value, captures) for key, value in plain.items()}
    if isinstance(plain, list):
        return [compile_shape(value, captures) for value in plain]
    return plain  # type: ignore[no-any-return]  # a scalar


def _fill(shape: Shape, fields: dict[str, Any], captured: dict[str, str]) -> Any:
    if isinstance(shape, Template):
        return shape.value(fields, captured)
    if isinstance(shape, dict):
        return {key: _fill(value, fields, captured) for key, value in shape.items()}
    if isinstance(shape, list):
        return [_fill(value, fields, captured) for value in shape]
    return shape


def _templates(shape: Shape) -> Iterator[Template]:
    if isinstance(shape, Template):
        yield shape
    elif isinstance(shape, dict | list):
        for part in shape.values() if isinstance(shape, dict) else shape:
            yield from _templates(part)


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes of a message: mappings and lists as JSON, a bare text as itself unless `json` asks otherwise."""

    shape: Shape
    json: bool = False
    fixed: bytes | None = None
    """The bytes, where no event can change them."""

    @classmethod
    def of(cls, shape: Shape, *, json: bool = False) -> Payload:
        """Compile, rendering at once what is constant."""
        payload = cls(shape, json)
        return payload if any(_templates(shape)) else cls(shape, json, payload.bytes({}, {}))

    def bytes(self, fields: dict[str, Any], captured: dict[str, str]) -> bytes:
        """The bytes for one event."""
        if self.fixed is not None:
            return self.fixed
        if isinstance(self.shape, Template) and not self.json:
            return self.shape.text(fields, captured).encode("utf-8", "replace")
        value = _fill(self.shape, fields, captured)
        return value.encode("utf-8", "replace") if isinstance(value, str) and not self.json else _encode(value)

    def value(self, fields: dict[str, Any], captured: dict[str, str]) -> Any:
        """What it holds for one event, not yet written as bytes."""
        return _fill(self.shape, fields, captured)

    def templates(self) -> Iterator[Template]:
        """The texts in it that depend on the event."""
        yield from _templates(self.shape)


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """`publish`."""

    topic: Template
    payload: Payload
    qos: int
    retain: bool

    def render(self, fields: dict[str, Any], captured: dict[str, str], hops: int) -> Publish:
        """The action for one event."""
        del hops
        return Publish(self.topic.text(fields, captured), self.payload.bytes(fields, captured), self.qos, self.retain)

    def templates(self) -> Iterator[Template]:
        """Every text that depends on the event."""
        yield from self.payload.templates()


@dataclass(frozen=True, slots=True)
class NotifyPlan:
    """`notify`."""

    to: str
    text: Template

    def render(self, fields: dict[str, Any], captured: dict[str, str], hops: int) -> Notify:
        """The action for one event."""
        del hops
        return Notify(self.to, self.text.text(fields, captured))

    def templates(self) -> Iterator[Template]:
        """Every text that depends on the event."""
        yield self.text


@dataclass(frozen=True, slots=True)
class EmitPlan:
    """`emit`."""

    topic: Template
    payload: Payload

    def render(self, fields: dict[str, Any], captured: dict[str, str], hops: int) -> Emit:
        """The action for one event that stands `hops` rules away from a device."""
        return Emit(self.topic.text(fields, captured), self.payload.bytes(fields, captured), hops + 1)

    def templates(self) -> Iterator[Template]:
        """Every text that depends on the event."""
        yield from self.payload.templates()


@dataclass(frozen=True, slots=True)
class SetPlan:
    """`set`, for one variable."""

    name: str
    value: Payload

    def render(self, fields: dict[str, Any], captured: dict[str, str], hops: int) -> Set:
        """The action for one event."""
        del hops
        return Set(self.name, self.value.value(fields, captured))

    def templates(self) -> Iterator[Template]:
        """Every text that depends on the event."""
        yield from self.value.templates()


@dataclass(frozen=True, slots=True)
class ExpectPlan:
    """`expect`: how the device confirms."""

    topic: Template
    where: str
    within_s: float
    retries: int


class RunTimes(NamedTuple):
    """What a command's actuator is held to, in nanoseconds."""

    min_on_ns: int = 0
    min_off_ns: int = 0
    max_on_ns: int | None = None


@dataclass(frozen=True, slots=True)
class CommandPlan:
    """`command`, and each of the two commands of a thermostat's actuator."""

    topic: Template
    payload: Payload
    state: str | None
    expect: ExpectPlan | None
    otherwise: tuple[PublishPlan | NotifyPlan | EmitPlan, ...]
    limits: RunTimes | None = None

    def render(self, fields: dict[str, Any], captured: dict[str, str], hops: int) -> Command:
        """The action for one event."""
        expect = None
        if self.expect is not None:
            plan = self.expect
            expect = Expect(plan.topic.text(fields, captured), plan.where, plan.within_s, plan.retries)
        otherwise = tuple(plan.render(fields, captured, hops) for plan in self.otherwise)
        payload = self.payload.bytes(fields, captured)
        return Command(self.topic.text(fields, captured), payload, self.state, expect, otherwise)

    def templates(self) -> Iterator[Template]:
        """Every text that depends on the event."""
        yield from self.payload.templates()
        for plan in self.otherwise:
            yield from plan.templates()

    @property
    def constant(self) -> bool:
        """Whether no event can change it, so that it can be sent before there is one."""
        return self.topic.constant and all(template.constant for template in self.templates())


Plan: TypeAlias = PublishPlan | NotifyPlan | EmitPlan | CommandPlan | SetPlan


class Step(NamedTuple):
    """A stretch of a sequence of actions: what is done at once, and how long to wait before the next stretch."""

    plans: tuple[Plan, ...]
    wait_ns: int = 0


def summary(plan: Plan) -> str:
    """One line for a person: what kind of action, and where to."""
    match plan:
        case NotifyPlan(to):
            return f"notify {to}"
        case CommandPlan(topic, state=state):
            return f"command {topic.source}" + (f" {state}" if state else "")
        case PublishPlan(topic):
            return f"publish {topic.source}"
        case EmitPlan(topic):
            return f"emit {topic.source}"
        case SetPlan(name):
            return f"set {name}"


def expressions(plans: Collection[Plan]) -> list[Expression]:
    """What the plans insert into their texts."""
    return [insert.expression for plan in plans for template in plan.templates() for insert in template.inserts]


__all__ = [
    "Action",
    "CommandPlan",
    "EmitPlan",
    "ExpectPlan",
    "NotifyPlan",
    "Payload",
    "Plan",
    "PublishPlan",
    "RunTimes",
    "SetPlan",
    "Step",
    "compile_shape",
    "expressions",
    "summary",
]
