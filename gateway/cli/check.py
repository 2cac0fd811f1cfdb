"""`gateway check`: everything that is wrong with a configuration and its rules, at once."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from gateway.cli.places import JsonOption
from gateway.errors import ConfigError


def check(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="The gateway's configuration.")
    ] = None,
    as_json: JsonOption = False,
    schema: Annotated[
        Literal["rules"] | None, typer.Option("--schema", help="Print the JSON Schema of rule files, for editors.")
    ] = None,
) -> None:
    """Check a configuration and its rules without starting anything. Exit code 2 if something must be changed."""
    from gateway.cli.configuration import load_all

    if schema is not None:
        from gateway.rules.reading.schema import rules_schema

        typer.echo(json.dumps(rules_schema(), indent=2, ensure_ascii=False))
        return
    if config is None:
        raise typer.BadParameter("Missing option '--config' / '-c'.")
    try:
        found = load_all(config)
    except ConfigError as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "problems": error.problems}, ensure_ascii=False))
            raise typer.Exit(2) from None
        raise
    if as_json:
        typer.echo(json.dumps({"ok": True, "warnings": found.warnings, **found.counts()}, ensure_ascii=False))
        return
    for warning in found.warnings:
        print(warning, file=sys.stderr)
    typer.echo("ok: " + ", ".join(f"{count} {_plural(word, count)}" for word, count in found.counts().items()))


def _plural(word: str, count: int) -> str:
    return word.removesuffix("s") if count == 1 else word
