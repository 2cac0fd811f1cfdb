"""The command line of `python -m firmware_sim`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from firmware_sim.catalogue import SENSOR_INTERVAL_S
from firmware_sim.durations import parse_duration
from firmware_sim.errors import OptionError
from firmware_sim.faults import Faults
from firmware_sim.link import LinkSettings
from firmware_sim.spans import Span, parse_skew, parse_span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_EPILOG = """\
durations: 250ms, 30s, 5m, 1h30m. Faults count in simulated time since the start; name may be *:
  --stuck greenhouse@60s..2m    --silence greenhouse/climate@5m..    --clock-skew living=-90s    --nan 0.01
Options that name a device may be given several times. Exit codes: 0 fine, 1 nothing ever connected, 2 usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for."""

    broker: str
    devices: int
    seed: int
    speed: float
    interval_s: float
    rate_per_s: float | None
    duration_s: float | None
    """None: until a signal."""
    pulse_timeout_s: float | None
    start_ts_s: float | None
    connections: int | None
    drain_s: float
    journal: Path | None
    faults: Faults
    link: LinkSettings
    as_json: bool
    quiet: bool


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line (default: this process's own).

    Raises:
        SystemExit: with code 2 after one line on stderr if it is wrong; with 0 after `--help`.
    """
    found = _parser().parse_args(arguments)
    spans: list[Span] = []
    rate = 0.0
    for value in found.nan:
        if isinstance(value, Span):
            spans.append(value)
        else:
            rate = value
    return Options(
        broker=found.broker,
        devices=found.devices,
        seed=found.seed,
        speed=found.speed,
        interval_s=found.interval,
        rate_per_s=found.rate,
        duration_s=found.duration,
        pulse_timeout_s=found.pulse_timeout,
        start_ts_s=found.start_time,
        connections=found.connections,
        drain_s=found.drain,
        journal=found.journal,
        faults=Faults(
            loss=found.loss,
            duplicates=found.duplicates,
            reorder=found.reorder,
            garble=found.garble,
            nan=rate,
            nan_spans=tuple(spans),
            stuck=tuple(found.stuck),
            silence=tuple(found.silence),
            deaf=tuple(found.deaf),
            clock_skew=tuple(found.clock_skew),
        ),
        link=LinkSettings(
            protocol=found.protocol,
            username=found.username,
            password=found.password,
            ca=found.ca,
            client_prefix=found.client_prefix,
            window=found.window,
            queue_size=found.queue,
            backoff_max_s=found.backoff_max,
            status=not found.no_status,
        ),
        as_json=found.json,
        quiet=found.quiet,
    )


def _parser() -> _Parser:
    parser = _Parser(
        prog="firmware_sim",
        description="Simulated devices that publish over MQTT and take commands.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_fleet(parser)
    _add_mqtt(parser)
    _add_faults(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--journal", type=Path, metavar="FILE", help="write what was sent and acknowledged, JSON lines")
    output.add_argument("--json", action="store_true", help="the final summary as JSON")
    output.add_argument("--quiet", action="store_true", help="nothing but the final summary")
    return parser


def _add_fleet(parser: _Parser) -> None:
    fleet = parser.add_argument_group("devices")
    duration = _told(parse_duration)
    add = fleet.add_argument
    add("--devices", type=_told(_count), default=10, metavar="N", help="how many (10)")
    add("--seed", type=int, default=7, help="everything random follows from it (7)")
    add(
        "--interval",
        type=_told(_positive_duration),
        default=SENSOR_INTERVAL_S,
        help="between readings, simulated (30s)",
    )
    add("--rate", type=_told(_positive), metavar="PER_S", help="messages per second and device, instead: load")
    add("--speed", type=_told(_positive), default=1.0, help="simulated seconds per second (1)")
    add("--for", dest="duration", type=duration, metavar="TIME", help="end after so much real time; else on a signal")
    add("--drain", type=duration, default=5.0, metavar="TIME", help="how long the end may take (5s)")
    add("--pulse-timeout", type=_told(_positive_duration), metavar="TIME", help="heaters drop unless ON is repeated")
    add("--start-time", type=_told(_instant), metavar="ISO", help="when devices believe it starts (now)")


def _add_mqtt(parser: _Parser) -> None:
    mqtt = parser.add_argument_group("MQTT")
    add = mqtt.add_argument
    add("--broker", default="mqtt://127.0.0.1:1883", metavar="URL", help="mqtt:// or mqtts:// (mqtt://127.0.0.1:1883)")
    add("--protocol", type=int, choices=(4, 5), default=4, help="4: MQTT 3.1.1, 5: MQTT 5 (4)")
    add("--username", metavar="NAME")
    add("--password")
    add("--ca", type=Path, metavar="FILE", help="trust anchors (PEM) for mqtts:// (the system's)")
    add("--client-prefix", default="sim-", metavar="TEXT", help="before each device's client id (sim-)")
    add("--connections", type=_told(_count), metavar="N", help="connections to share (one per device)")
    add("--window", type=_told(_count), default=20, metavar="N", help="unacknowledged messages per connection (20)")
    add("--queue", type=_told(_count), default=1_000, metavar="N", help="newest messages a device keeps offline (1000)")
    add("--backoff-max", type=_told(_positive_duration), default=30.0, metavar="TIME", help="longest pause (30s)")
    add("--no-status", action="store_true", help="no devices/<name>/status and no last will")


def _add_faults(parser: _Parser) -> None:
    faults = parser.add_argument_group("faults")
    add = faults.add_argument
    rate, span = _told(_probability), _told(parse_span)
    add("--loss", type=rate, default=0.0, metavar="P", help="never sent")
    add("--duplicates", type=rate, default=0.0, metavar="P", help="sent twice")
    add("--reorder", type=rate, default=0.0, metavar="P", help="sent after the device's next message")
    add("--garble", type=rate, default=0.0, metavar="P", help="cut off in mid-payload")
    add("--nan", type=_told(_rate_or_span), action="append", default=[], metavar="P|SPAN", help="numbers read NaN")
    add("--stuck", type=span, action="append", default=[], metavar="SPAN", help="values stay as they are")
    add("--silence", type=span, action="append", default=[], metavar="SPAN", help="nothing is sent")
    add("--deaf", type=span, action="append", default=[], metavar="SPAN", help="commands are ignored")
    add("--clock-skew", type=_told(parse_skew), action="append", default=[], metavar="[NAME=]TIME", help="ts is off")


def _told(read: Callable[[str], object]) -> Callable[[str], object]:
    """A reader whose sentence reaches the user; argparse shows the text of one kind of exception only."""

    def convert(text: str) -> object:
        try:
            return read(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{text!r} is not a number") from None


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number < float("inf"):
        raise OptionError(f"{text} is not greater than 0")
    return number


def _positive_duration(text: str) -> float:
    duration_s = parse_duration(text)
    if duration_s <= 0:
        raise OptionError(f"{text} is not greater than 0")
    return duration_s


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"{text!r} is not a whole number from 1")
    return int(text)


def _probability(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise OptionError(f"{text} is not a probability from 0 to 1")
    return number


def _rate_or_span(text: str) -> float | Span:
    return parse_span(text) if "@" in text else _probability(text)


def _instant(text: str) -> float:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise OptionError(f"{text!r} is not a time such as 2026-01-01T06:00:00Z") from None
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
