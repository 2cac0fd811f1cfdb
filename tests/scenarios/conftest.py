"""A site of real processes, direct and behind a broker."""

from __future__ import annotations

import pytest

from tests.scenarios.site import Site


@pytest.fixture(params=["direct", "behind mosquitto"])
async def site(request, tmp_path):
    """A site whose devices connect to the gateway's own listener, and one with mosquitto between."""
    found = Site(tmp_path, behind_broker=request.param != "direct")
    yield found
    await found.close()
