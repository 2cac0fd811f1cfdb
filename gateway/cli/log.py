"""`gateway log`: what is in the log of a data directory. Read-only, so it works beside a running gateway."""

import asyncio
import contextlib
from typing import Annotated

import typer

from gateway.cli.places import ConfigOption, DataDirArgument, DataDirOption, JsonOption, find_data_dir

app = typer.Typer(no_args_is_help=True, help="Look into the log on disk, also beside a running gateway.")


@app.command()
def info(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how much the logs hold, and from when to when. Exit code 1 if a log is damaged."""
    from gateway.cli import log_view
    from gateway.ringlog import inspect

    place = find_data_dir(data_dir, option, config)
    logs = {log: inspect.info(place, log) for log in ("events", "deadletters")}
    if as_json:
        _echo_json(logs)
    else:
        for name, found in logs.items():
            for line in log_view.info_lines(name, found):
                typer.echo(line)
    if any(found.damaged for found in logs.values()):
        raise typer.Exit(1)


@app.command()
def verify(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of both logs. Exit code 1 if anything that was acknowledged is damaged or missing."""
    from gateway.cli import log_view
    from gateway.ringlog import inspect

    place = find_data_dir(data_dir, option, config)
    logs = {log: inspect.verify(place, log) for log in ("events", "deadletters")}
    if as_json:
        _echo_json(logs)
    else:
        for name, found in logs.items():
            for line in log_view.verify_lines(name, found):
                typer.echo(line)
    if not all(found.sound for found in logs.values()):
        raise typer.Exit(1)


@app.command()
def tail(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="How many of the newest records to show.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is appended.")] = False,
    topic: Annotated[str, typer.Option("--topic", "-t", metavar="FILTER", help="Only topics that match.")] = "#",
    decisions: Annotated[bool, typer.Option("--decisions", help="Show what rules decided, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the newest records, one line each, in this machine's time zone; with --json one JSON object each."""
    from gateway.cli import log_reading, log_view

    place = find_data_dir(data_dir, option, config)
    try:
        wanted = log_view.selection(topic, decisions=decisions)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    show = log_view.event_json if as_json else log_view.event_line
    found, damaged, end = log_reading.newest(place, wanted, last)
    for damage in damaged:
        typer.echo(log_view.damage_line(damage), err=True)
    for batch, event in found:
        typer.echo(show(batch, event))

    async def go_on() -> None:
        async for batch, event in log_reading.follow(place, end, wanted):
            typer.echo(show(batch, event))

    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(go_on())


def _echo_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
