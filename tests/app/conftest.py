"""Gateways in this process, on a clock of the test's own."""

from __future__ import annotations

import pytest

from tests.app.lives import Lives


@pytest.fixture
async def lives(tmp_path, clock):
    """Builds `Lives` with rules; closes them on the way out."""
    made: list[Lives] = []

    def build(rules: str = "") -> Lives:
        made.append(Lives(tmp_path, clock, rules))
        return made[-1]

    yield build
    for each in made:
        await each.close()
