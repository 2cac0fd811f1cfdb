"""A JSON Schema of rule files, for editors: completion, descriptions, red lines under what is misspelt.

It says which keys there are and what shape their values have. What they mean together, and whether an expression is
one, only `gateway check` says: the readers know, and there they stand once.

Invariants:
- The keys are those of the readers (`tests/rules/test_schema.py` holds both against each other).
- What the readers take, the schema takes; it may take more.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from gateway.rules.compiled import MODES
from gateway.rules.reading.phrases import IDENTIFIER
from gateway.rules.schedules.sun import EVENTS

Schema: TypeAlias = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_ANY: Schema = {}
_ID: Schema = {"type": "string", "pattern": f"^{IDENTIFIER}$"}
_DURATION: Schema = {
    "type": "string",
    "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$|^[0-9]{2,}:[0-5][0-9]:[0-5][0-9]$",
    "examples": ["90s", "5m", "1h30m", "7d"],
}
_TOPIC: Schema = {"type": "string", "minLength": 1, "examples": ["devices/{device}/climate"]}
_ON_OFF: Schema = {"enum": ["on", "off"]}


def rules_schema() -> Schema:
    """The schema of a rule file, as JSON."""
    return {
        "$schema": _DRAFT,
        "title": "Rules of the gateway",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "rules": _said("Rules, asked in this order.", _one_or_more({"$ref": "#/$defs/rule"})),
            "thermostats": _said("Thermostats.", _one_or_more({"$ref": "#/$defs/thermostat"})),
        },
        "$defs": {
            "rule": _rule(),
            "trigger": _trigger(),
            "action": _action(),
            "expect": _expect(),
            "thermostat": _thermostat(),
            "thresholds": _object(_thresholds()),
            "actuator": _actuator(),
        },
    }


def _rule() -> Schema:
    trigger = _said("What triggers it.", _one_or_more({"$ref": "#/$defs/trigger"}))
    condition = _said("What must be true, as long as the rule is active.", _one_or_more(_TEXT))
    actions = _said("What to do when it begins.", _one_or_more({"$ref": "#/$defs/action"}))
    properties = {
        "id": _said("Its name, once in all files.", _ID),
        "on": trigger,
        "triggers": trigger,
        "when": condition,
        "conditions": condition,
        "where": _said("Instead of `when`: every event for which this holds fires `then`.", _TEXT),
        "then": actions,
        "actions": actions,
        "finally": _said("What to do when it ends.", _one_or_more({"$ref": "#/$defs/action"})),
        "for": _said("How long it must have been true.", _DURATION),
        "until": _said("What ends it; default: `when` is no longer true.", _TEXT),
        "keep_for": _said("It ends only once it has been over for so long.", _DURATION),
        "cooldown": _said("So long after a beginning it does not begin again.", _DURATION),
        "after": _said("What must have come before.", _object({"on": _TOPIC, "when": _TEXT}, "on")),
        "within": _said("How long before, at most.", _DURATION),
        "mode": _said("What a trigger does while a sequence is under way.", {"enum": list(MODES)}),
        "max": _said("Sequences under way at most.", {"type": "integer", "minimum": 1, "maximum": 1_000}),
        "stale_after": _said("After so long a silence nothing is known any more.", _DURATION),
        "on_stale": _said("Off: run `finally`. Hold: leave it active.", {"enum": ["off", "hold"]}),
        "time": _said("The event's own time: seconds or milliseconds since 1970, or ISO 8601.", _TEXT),
        "max_age": _said("Older events trigger nothing; default 60s.", _DURATION),
        "lateness": _said("A tumbling window is over so much later.", _DURATION),
        "evaluate_every": _said("How often it is looked at without an event, if it looks beyond them.", _DURATION),
        "most_per_minute": _said("Firings of one key.", {"type": "integer", "minimum": 1}),
        "shadow": _said("Decides, is recorded, and nobody acts on it.", {"type": "boolean"}),
        "allow_loop": _said("It may trigger itself.", {"type": "boolean"}),
    }
    whole = _object(properties, "id")
    whole["allOf"] = [
        {"oneOf": [{"required": [short]}, {"required": [long]}]}
        for short, long in (("on", "triggers"), ("then", "actions"))
    ]
    return whole


def _trigger() -> Schema:
    zone = _said("A time zone; default is the gateway's.", _TEXT)
    days = _said("mon … sun, weekdays, weekend, daily.", _one_or_more(_TEXT))
    degrees = {"latitude": _said("Degrees north.", _NUMBER), "longitude": _said("Degrees east.", _NUMBER)}
    event = {
        "topic": _said("Which events.", _TOPIC),
        "field": _said("An expression: what must cross a threshold.", _TEXT),
        "above": _said("The threshold, from below.", _NUMBER),
        "below": _said("The threshold, from above.", _NUMBER),
        "silent": _said("Triggers when nothing has come for so long.", _DURATION),
        "also_on_start": _said("A first value, or a silence from the start on, counts as well.", {"type": "boolean"}),
    }
    sun = {"sun": _said("What the sun does.", {"enum": list(EVENTS)}), "offset": _said("-30m, 1h", _TEXT)}
    return {
        "anyOf": [
            _said("Every event on these topics.", _TOPIC),
            _object(event, "topic"),
            _object({"at": _said("A time of day.", _TEXT), "days": days, "timezone": zone}, "at"),
            _object({"every": _said("A period, on the log's own clock.", _DURATION)}, "every"),
            _object({"cron": _said("Minute, hour, day, month, weekday.", _TEXT), "timezone": zone}, "cron"),
            _object({**sun, **degrees, "timezone": zone}, "sun"),
            _object({"rule": _said("Whatever that rule emits.", _ID)}, "rule"),
        ]
    }


def _action() -> Schema:
    otherwise = _one_or_more({"$ref": "#/$defs/action"})
    command = {
        "topic": _TOPIC,
        "payload": _said("Mappings and lists are sent as JSON, a bare text as it is.", _ANY),
        "state": _said("Which of its two states this is.", _ON_OFF),
        "expect": {"$ref": "#/$defs/expect"},
        "otherwise": _said("What to do if nobody confirms it.", otherwise),
        "min_on": _said("It stays on for at least so long.", _DURATION),
        "min_off": _said("It rests for at least so long.", _DURATION),
        "max_on": _said("It is switched off after so long, whatever rules say.", _DURATION),
    }
    message = {"topic": _TOPIC, "payload": _ANY}
    publish = {**message, "qos": {"enum": [0, 1]}, "retain": {"type": "boolean"}}
    kinds = {
        "command": _said("Drive an actuator.", _object(command, "topic", "payload")),
        "publish": _said("A plain message.", _object(publish, "topic", "payload")),
        "emit": _said(
            "An event of its own, into the log.", _object({"topic": _TOPIC, "payload": _ANY}, "topic", "payload")
        ),
        "notify": _said("Tell a person.", _object({"to": _ID, "text": _TEXT}, "to", "text")),
        "set": _said("Give variables values.", {"type": "object", "minProperties": 1}),
        "wait": _said("What follows is done later.", _DURATION),
    }
    return {**_object(kinds), "minProperties": 1, "maxProperties": 1}


def _expect() -> Schema:
    properties = {
        "topic": _said("Where the device reports.", _TOPIC),
        "where": _said("What it must report; `wanted` is the payload.", _TEXT),
        "within": _said("How soon; default 5s.", _DURATION),
        "retries": _said("Further tries; default 3.", {"type": "integer", "minimum": 0, "maximum": 20}),
    }
    return _said("How the device confirms.", _object(properties, "topic", "where"))


def _thresholds() -> Schema:
    return {
        "on_below": _said("Heating begins below.", _NUMBER),
        "off_above": _said("Heating ends above.", _NUMBER),
        "on_above": _said("Cooling begins above.", _NUMBER),
        "off_below": _said("Cooling ends below.", _NUMBER),
    }


def _thermostat() -> Schema:
    sensor = _object({"topic": _TOPIC, "field": _said("An expression.", _TEXT)}, "topic", "field")
    properties = {
        "id": _said("Its name, once in all files.", _ID),
        "mode": {"enum": ["heat", "cool", "heat_cool"]},
        "sensor": _said("What it measures.", sensor),
        **_thresholds(),
        "min_on": _said("It runs for at least so long.", _DURATION),
        "min_off": _said("It rests for at least so long.", _DURATION),
        "max_on": _said("It runs for at most so long.", _DURATION),
        "reassert": _said("How often the present command is said again; default 10m.", _DURATION),
        "stale_after": _said("How long a silence is still a reading.", _DURATION),
        "on_stale": _said("What a silent sensor means.", {"enum": ["off", "on", "hold"]}),
        "timezone": _said("Of its timetable; default is the gateway's.", _TEXT),
        "schedule": _said("Thresholds by time of day: see docs/thermostats.md.", _one_or_more({"type": "object"})),
        "window": _said("Open windows: see docs/thermostats.md.", _one_or_more({"type": "object"})),
        "away": _said("Other thresholds while nobody is there: see docs/thermostats.md.", {"type": "object"}),
        "actuator": {"$ref": "#/$defs/actuator"},
        "heater": {"$ref": "#/$defs/actuator"},
        "cooler": {"$ref": "#/$defs/actuator"},
    }
    return _object(properties, "id", "mode", "sensor", "stale_after", "on_stale")


def _actuator() -> Schema:
    properties = {
        "topic": _TOPIC,
        "on": _said("What switches it on.", _ANY),
        "off": _said("What switches it off.", _ANY),
        "expect": {"$ref": "#/$defs/expect"},
        "otherwise": _one_or_more({"$ref": "#/$defs/action"}),
    }
    return _object(properties, "topic", "on", "off")


def _object(properties: Schema, *required: str) -> Schema:
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": list(required)} if required else found


def _one_or_more(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item}]}


def _said(description: str, schema: Schema) -> Schema:
    return {"description": description, **schema}
