"""`python -m firmware_sim`: a fleet on the command line.

The summary goes to stdout, everything about how it goes to stderr, so that `--json` can be piped.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from firmware_sim.errors import OptionError
from firmware_sim.fleet import Fleet
from firmware_sim.options import parse_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firmware_sim.options import Options
    from firmware_sim.summary import Summary

_PROGRESS_INTERVAL_S = 5.0
_NOTHING_CONNECTED, _USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a fleet. Returns the exit code."""
    options = parse_options(arguments)
    try:
        summary = asyncio.run(_run(options))
    except OptionError as error:
        return _complain(str(error), _USAGE)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}", _USAGE)
    sys.stdout.write((summary.json() if options.as_json else summary.line()) + "\n")
    if not summary.connects:
        return _complain(f"nothing ever connected; {summary.never_connected[0]}", _NOTHING_CONNECTED)
    return 0


async def _run(options: Options) -> Summary:
    fleet = Fleet(
        options.broker,
        options.devices,
        options.seed,
        options.speed,
        options.faults,
        sensor_interval_s=options.interval_s,
        rate_per_s=options.rate_per_s,
        pulse_timeout_s=options.pulse_timeout_s,
        start_ts_s=options.start_ts_s,
        connections=options.connections,
        link=options.link,
        journal=options.journal,
        drain_s=options.drain_s,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if options.duration_s is not None:
        loop.call_later(options.duration_s, stop.set)
    async with asyncio.TaskGroup() as tasks:
        progress = tasks.create_task(_progress(fleet, options), name="firmware_sim.progress")
        await fleet.run(stop)
        progress.cancel()
    return fleet.summary()


async def _progress(fleet: Fleet, options: Options) -> None:
    """One line every few seconds, unless quiet."""
    while not options.quiet:
        await asyncio.sleep(_PROGRESS_INTERVAL_S)
        connected = sum(device.connected for device in fleet.devices)
        sys.stderr.write(f"{connected} of {options.devices} devices connected | {fleet.summary().line()}\n")


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"firmware_sim: {sentence}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
