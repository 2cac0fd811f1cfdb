"""`gateway log`: what is in the logs of a data directory.

All but `repair` only read, take no lock, and work beside a running gateway.
"""

import asyncio
import contextlib
import enum
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from gateway.cli.places import (
    ConfigOption,
    DataDirArgument,
    DataDirOption,
    JsonOption,
    find_data_dir,
    load_settings,
)

if TYPE_CHECKING:
    from gateway.cli.log_export import Sheet
    from gateway.ringlog.inspect import VerifyReport

app = typer.Typer(no_args_is_help=True, help="Look into the logs on disk, also beside a running gateway; mend them.")


class Log(enum.StrEnum):
    """Which log."""

    EVENTS = "events"
    AUDIT = "audit"
    DEAD_LETTERS = "deadletters"


class FileFormat(enum.StrEnum):
    """Of an export."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LogOption = Annotated[Log, typer.Option("--log", help="Which log.")]
TopicOption = Annotated[str, typer.Option("--topic", "-t", metavar="FILTER", help="Only topics that match.")]
DecisionsOption = Annotated[bool, typer.Option("--decisions", help="What rules decided, too.")]


@app.command()
def info(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    damage: Annotated[bool, typer.Option("--damage", help="Look for damage, too: reads every byte.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how much the logs hold, and from when to when. Exit code 1 if a log is damaged.

    Reads only the beginning of each segment, unless --damage asks for more.
    """
    from gateway.cli import log_view
    from gateway.ringlog import inspect

    place = find_data_dir(data_dir, option, config)
    logs = {log: inspect.info(place, log) for log in inspect.logs_in(place)}
    reports = _verify(place) if damage else {}
    if as_json:
        _echo_json({"logs": logs, "damage": reports} if damage else logs)
    else:
        for name, found in logs.items():
            for line in log_view.info_lines(name, found):
                typer.echo(line)
        for name, report in reports.items():
            for line in log_view.verify_lines(name, report):
                typer.echo(line)
    if any(found.damaged for found in logs.values()) or not all(report.sound for report in reports.values()):
        raise typer.Exit(1)


@app.command()
def verify(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every byte of every log. Exit code 1 if anything that was acknowledged is damaged or missing."""
    from gateway.cli import log_view

    logs = _verify(find_data_dir(data_dir, option, config))
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
    log: LogOption = Log.EVENTS,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="How many of the newest records to show.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is appended.")] = False,
    topic: TopicOption = "#",
    decisions: DecisionsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the newest records, one line each, in this machine's time zone; with --json one JSON object each."""
    from gateway.cli import log_reading, log_view

    place = find_data_dir(data_dir, option, config)
    try:
        wanted = log_view.selection(topic, decisions=decisions, log=log)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    show = log_view.event_json if as_json else log_view.event_line
    found = log_reading.newest(place, wanted, last, log)
    for loss in found.losses:
        typer.echo(log_view.damage_line(loss), err=True)
    for batch, event in found.records:
        typer.echo(show(batch, event, found.timeline.wall_ns(event.stamp)))

    async def go_on() -> None:
        async for batch, event in log_reading.follow(place, found.end, wanted, log):
            typer.echo(show(batch, event, found.timeline.wall_ns(event.stamp)))

    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(go_on())


@app.command()
def repair(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Rebuild damaged logs from every record that is left; the log as it was stays beside it.

    No gateway may run on the directory. The gateway itself needs no repair: it serves what is left of a damaged log.
    Exit code 1 if --dry-run found damage.
    """
    from gateway.cli import log_view
    from gateway.cli.progress import Reading
    from gateway.ringlog import repair as mend

    place = find_data_dir(data_dir, option, config)
    with Reading("reading", 2 * mend.size_bytes(place)) as bar:
        done = mend.repair(place, dry_run=dry_run, progress=bar.advance)
    if as_json:
        _echo_json({each.log: each for each in done})
    else:
        for each in done:
            for line in log_view.repair_lines(each):
                typer.echo(line)
    if any(each.outcome == "damaged" for each in done):
        raise typer.Exit(1)


@app.command()
def export(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    log: LogOption = Log.EVENTS,
    since: Annotated[str | None, typer.Option("--since", metavar="DURATION", help="The last 90s, 12h, 7d.")] = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From this time on: ISO 8601, local without an offset.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to, and without, this time.")] = None,
    topic: TopicOption = "#",
    decisions: DecisionsOption = False,
    file_format: Annotated[FileFormat, typer.Option("--format", help="What to write.")] = FileFormat.JSONL,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is stdout. Appears once it is complete.")
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    gateway_id: Annotated[
        str, typer.Option("--gateway", metavar="ID", help="For the ids of records; --config knows it.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    """Write records of a log as JSON lines, CSV or Parquet, oldest first.

    Exit code 1 if the part of the log that was read is damaged; what is left of it is written all the same.
    """
    from gateway.cli import log_export, log_view
    from gateway.cli.progress import Reading
    from gateway.ringlog.by_time import Timed, Window
    from gateway.ringlog.contents import Loss

    place = find_data_dir(data_dir, option, config)
    if as_json and file_format is not FileFormat.JSONL:
        raise typer.BadParameter("--json and another --format exclude each other")
    path = None if output == "-" else Path(output)
    if path is None and file_format is FileFormat.PARQUET and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is nothing for a terminal: give --output FILE")
    from_ns, to_ns = _times(since, begin, end)
    try:
        pick = log_export.chosen(topic, kinds=log_view.kinds_of(log, decisions=decisions))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    window = Window(place, log, from_ns, to_ns)
    gateway_id = gateway_id or (load_settings(config).gateway_id if config is not None else "")
    quiet = path is None and sys.stdout.isatty()
    damaged = False
    with (
        Reading("exporting", window.size_bytes, wanted=not quiet) as bar,
        log_export.target(path, force=force) as out,
    ):
        sheet = _sheet(file_format, out)
        for item in window.read(gateway_id, bar.advance):
            if isinstance(item, Timed):
                sheet.write(log_export.rows_of(item.batch, item.wall_ns, pick(item.batch)))
            elif isinstance(item, Loss):
                damaged = True
                bar.tell(log_view.damage_line(item))
            else:
                bar.tell(log_view.evicted_line(item))
        sheet.finish()
    if damaged:
        raise typer.Exit(1)


def _sheet(file_format: FileFormat, out: IO[bytes]) -> "Sheet":
    from gateway.cli.log_export import Csv, JsonLines

    if file_format is FileFormat.JSONL:
        return JsonLines(out)
    if file_format is FileFormat.CSV:
        return Csv(out)
    from gateway.cli.log_parquet import Parquet

    return Parquet(out)


def _times(since: str | None, begin: str | None, end: str | None) -> tuple[int, int]:
    """`[from, to)` in ns since 1970, from what the options say."""
    from gateway.clock import SystemClock
    from gateway.config.scalars import Wrong, duration_s
    from gateway.ringlog.timeline import EVER_NS

    from_ns, to_ns = -EVER_NS, EVER_NS
    if since is not None and begin is not None:
        raise typer.BadParameter("--since and --from exclude each other")
    if since is not None:
        span_s = duration_s(since)
        if isinstance(span_s, Wrong):
            raise typer.BadParameter(f"--since: {span_s.message}")
        from_ns = SystemClock().wall_ns() - int(span_s * 1e9)
    if begin is not None:
        from_ns = _time_ns("--from", begin)
    if end is not None:
        to_ns = _time_ns("--to", end)
    if from_ns >= to_ns:
        raise typer.BadParameter("the time to which is not after the time from which")
    return from_ns, to_ns


def _time_ns(name: str, text: str) -> int:
    try:
        when = datetime.fromisoformat(text).astimezone(UTC) - _EPOCH
        return (when.days * 86_400 + when.seconds) * 1_000_000_000 + when.microseconds * 1_000
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"{name}: write a time as 2026-05-04T13:00, 2026-05-04T13:00:00Z or 2026-05-04"
        ) from None


def _verify(place: Path) -> dict[str, "VerifyReport"]:
    from gateway.cli.progress import Reading
    from gateway.ringlog import inspect
    from gateway.ringlog.contents import look

    logs = inspect.logs_in(place)
    with Reading("reading", sum(look(place, log).size_bytes for log in logs)) as bar:
        return {log: inspect.verify(place, log, bar.advance) for log in logs}


def _echo_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
