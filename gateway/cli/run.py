"""`gateway run`: the gateway itself, until it is told to stop."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    config: Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The gateway's configuration.")],
) -> None:
    """Run until SIGTERM or SIGINT, then drain and exit 0. Every configuration error is told before anything starts."""
    from gateway.cli.configuration import load_all

    found = load_all(config)

    # Only a sound configuration is worth the time that loading the rest takes.
    from gateway.app import run_gateway
    from gateway.observe import events, log

    log.configure()
    for warning in found.warnings:
        events.configuration_warned(warning)
    raise typer.Exit(run_gateway(found.settings, found.rules))
