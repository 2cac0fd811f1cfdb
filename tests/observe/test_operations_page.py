"""`docs/operations.md` says what the code does: names that it gives exist, and none that exists is missing."""

import inspect
import re
from pathlib import Path

import pytest

from gateway.observe import events
from gateway.observe.metrics import StatusCollector

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_metrics_table_lists_exactly_the_metrics(status):
    """Whoever builds a dashboard from the page finds every name, with its labels and its type."""
    documented = set(re.findall(r"^\| `(gateway_\w+)[^`]*` \| (\w+) ", PAGE, re.MULTILINE))
    exposed = set()
    for family in StatusCollector(lambda: status).collect():
        exposed.add((family.name + "_total" if family.type == "counter" else family.name, family.type))
    assert documented == exposed


def test_events_named_on_the_page_exist():
    """An operator can search the log for what the page speaks of."""
    known = {name for name, _ in inspect.getmembers(events, inspect.isfunction)}
    section = PAGE.partition("## When something is wrong")[2]
    named = set(re.findall(r"`((?:disk|log|sink|payload|command)_[a-z_]+)`", section))
    assert len(named) > 5
    assert named <= known


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/deadletters/replay"])
def test_every_http_path_is_on_the_page(path):
    """What is served is documented."""
    assert f"{path}`" in PAGE
