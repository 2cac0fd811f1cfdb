"""What the simulator raises. Bad commands from the network are counted, never raised."""

from __future__ import annotations


class SimulatorError(Exception):
    """Root of the family. Anything else that escapes is a bug."""


class OptionError(SimulatorError):
    """Whoever started the simulator must change an argument. One sentence; the process exits with code 2."""
