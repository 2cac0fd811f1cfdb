"""`gateway rules`: what rules do, before and after they are trusted with a house.

Each command stands in a module of its own, `rules_*.py`, and is registered here.
"""

import typer

from gateway.cli import rules_backtest, rules_testing, rules_why

app = typer.Typer(no_args_is_help=True, help="Test rules, try them on the past, and ask them why.")
app.command("test")(rules_testing.run_tests)
app.command("backtest")(rules_backtest.backtest)
app.command("why")(rules_why.why)
