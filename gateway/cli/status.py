"""`gateway status`: how the running gateway is."""

import sys
from typing import Annotated

import typer

from gateway.cli.places import ConfigOption, JsonOption, load_settings


def status(
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where the gateway's HTTP API is.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how the running gateway is. Exit code 1 if it does not answer, is unhealthy or not ready."""
    from gateway.cli import client

    if url is None:
        url = _configured_url(config)
    found = client.fetch_status(url)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        from rich.console import Console

        from gateway.cli import status_view

        if sys.stdout.isatty():
            Console().print(status_view.table(found))
        else:
            for line in status_view.lines(found):
                typer.echo(line)
    if not (found.healthy and found.ready):
        raise typer.Exit(1)


def _configured_url(config: "ConfigOption") -> str:
    from gateway.cli import client

    if config is None:
        return client.DEFAULT_URL
    http = load_settings(config).http
    if http is None:
        raise typer.BadParameter(f"{config} switches the HTTP API off")
    return client.url_of(http)
