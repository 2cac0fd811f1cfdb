"""Which release this is, as the package's own metadata says it."""

from __future__ import annotations

from importlib import metadata

_DISTRIBUTION = "edge-event-gateway"


def installed_version() -> str:
    """The installed version; `0+unknown` in a checkout that was never installed."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+unknown"
