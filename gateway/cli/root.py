"""The `gateway` command: what commands there are, and how errors become exit codes.

    0  fine
    1  it found something wrong: damage, an unhealthy gateway, a disk that refuses
    2  the operator must change something: usage, or the configuration, told as `path:line:column: message`

Invariants:
- Importing this module, and `gateway --help`, load no server and no client library: each command imports what it needs
  when it runs.
- Results go to stdout, everything about how it went to stderr, so that `--json` can be piped.

The command modules do without `from __future__ import annotations`, because typer reads their annotations at run time.
"""

import sys
from typing import Annotated

import typer

from gateway.cli import check, demo, dlq, log, password, rules, run, status
from gateway.errors import ConfigError, GatewayError

FOUND_SOMETHING = 1
OPERATOR_MUST_ACT = 2

app = typer.Typer(
    name="gateway",
    help="An edge event gateway: devices in, a log on disk, rules, and an uplink that may be gone for days.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("status")(status.status)
app.command("password")(password.password)
app.add_typer(log.app, name="log")
app.add_typer(dlq.app, name="dlq")
app.add_typer(rules.app, name="rules")


def _version(wanted: bool) -> None:
    if wanted:
        from gateway.observe.version import installed_version

        typer.echo(f"gateway {installed_version()}")
        raise typer.Exit


@app.callback()
def gateway(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Exit codes: 0 fine, 1 something is wrong, 2 usage or configuration."""


def main() -> None:
    """Run the command line and exit. Never returns."""
    try:
        app(prog_name="gateway")
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        sys.exit(OPERATOR_MUST_ACT)
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)
        sys.exit(FOUND_SOMETHING)
