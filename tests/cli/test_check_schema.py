"""`gateway check --schema rules`, for editors."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from gateway.cli.root import app
from gateway.rules.reading.schema import rules_schema


def test_the_schema_is_printed_without_a_configuration():
    """It describes the language, not a gateway."""
    result = CliRunner().invoke(app, ["check", "--schema", "rules"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == rules_schema()


def test_without_either_it_says_what_is_missing():
    """As for every option that is required."""
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 2
    assert "--config" in result.output
