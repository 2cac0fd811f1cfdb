"""`gateway dlq`: what could not be processed, why, and putting it back."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.places import ConfigOption, DataDirArgument, DataDirOption, JsonOption, find_data_dir, load_settings

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.web.deadletters import ReplayRequest, ReplayResult

app = typer.Typer(no_args_is_help=True, help="Look at what could not be processed, and put it back.")

_Ids = Annotated[list[str] | None, typer.Argument(metavar="[DATA_DIR] ID...", help="Ids as `dlq list` shows them.")]


@app.command("list")
def list_(
    data_dir: DataDirArgument = None,
    option: DataDirOption = None,
    config: ConfigOption = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Only of `ingest`, or of one sink.")] = None,
    code: Annotated[str | None, typer.Option("--code", help="Only with this reason.")] = None,
    with_replayed: Annotated[bool, typer.Option("--all", help="Those that have been put back, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, oldest first; with --json one JSON object a line."""
    from gateway.cli import dlq_view
    from gateway.web.deadletters import Ledger
    from gateway.web.replay import read_letters

    ledger = Ledger(read_letters(find_data_dir(data_dir, option, config)))
    show = dlq_view.letter_json if as_json else dlq_view.letter_line
    shown = 0
    for letter in ledger.letters if with_replayed else ledger.waiting():
        if stage in (None, letter.stage) and code in (None, letter.code):
            typer.echo(show(letter, replayed=letter.id in ledger.replayed))
            shown += 1
    if not as_json and not shown:
        typer.echo("no dead letters", err=True)


@app.command()
def show(
    ids: _Ids = None, option: DataDirOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show dead letters whole, payload included. Exit code 1 if one is not there."""
    from gateway.cli import dlq_view
    from gateway.web.deadletters import Ledger
    from gateway.web.replay import read_letters

    place, wanted = _place_and_ids(ids, option, config)
    if not wanted:
        raise typer.BadParameter("give at least one ID")
    ledger = Ledger(read_letters(place))
    found = [letter for letter in ledger.letters if letter.id in wanted]
    for letter in found:
        replayed = letter.id in ledger.replayed
        if as_json:
            typer.echo(dlq_view.letter_json(letter, replayed=replayed))
        else:
            typer.echo("\n".join(dlq_view.letter_lines(letter, replayed=replayed)))
    missing = set(wanted) - {letter.id for letter in found}
    for name in sorted(missing):
        typer.echo(f"{name}: the dead-letter log does not hold it", err=True)
    if missing:
        raise typer.Exit(1)


@app.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Ids as `dlq list` shows them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that have not been put back.")] = False,
    config: ConfigOption = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="The running gateway's HTTP API.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back into the log, marked as replayed: sinks see them, no actuator moves.

    With --config it writes to the log itself, or asks the gateway that is running on it; with --url it only asks.
    Exit code 1 if an id that was given could not be put back.
    """
    from gateway.web.deadletters import ReplayRequest

    if everything == bool(ids):
        raise typer.BadParameter("give either ids or --all")
    if (url is None) == (config is None):
        raise typer.BadParameter("give one of --config FILE, or --url URL of a running gateway")
    request = ReplayRequest(ids=tuple(ids or ()), all=everything)
    result = _replay(request, load_settings(config)) if config is not None else _ask(request, str(url))
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(result).decode())
    else:
        typer.echo(f"{len(result.replayed)} put back")
        for name, why in result.refused.items():
            typer.echo(f"{name}: {why}", err=True)
    if result.refused and not everything:
        raise typer.Exit(1)


def _ask(request: "ReplayRequest", url: str) -> "ReplayResult":
    from gateway.cli import client

    return client.replay(url, request)


def _replay(request: "ReplayRequest", settings: "Settings") -> "ReplayResult":
    """In the log itself if nobody holds it, else by the gateway that does."""
    from gateway.cli import client
    from gateway.errors import LogInUseError

    try:
        return asyncio.run(_replay_offline(request, settings))
    except LogInUseError:
        if settings.http is None:
            raise
        return client.replay(client.url_of(settings.http), request)


async def _replay_offline(request: "ReplayRequest", settings: "Settings") -> "ReplayResult":
    from gateway.clock import SystemClock
    from gateway.ingest import Ingest
    from gateway.observe import log
    from gateway.ringlog import Store
    from gateway.web.replay import Replayer

    log.configure(level="warning")
    store = Store(settings.data_dir, settings.gateway_id, settings.log, SystemClock(), _ignore)
    try:
        ingest = Ingest(settings.topics, store.events, store.dead_letters, store.committer)
        return await Replayer(store, settings.data_dir, ingest)(request)
    finally:
        await store.close()


def _ignore(_error: Exception) -> None:
    """The replay that met the failure raises it itself."""


def _place_and_ids(ids: list[str] | None, option: Path | None, config: Path | None) -> tuple[Path, list[str]]:
    """The first argument is the data directory unless an option names it."""
    rest = list(ids or [])
    argument = Path(rest.pop(0)) if rest and option is None and config is None else None
    return find_data_dir(argument, option, config), rest
