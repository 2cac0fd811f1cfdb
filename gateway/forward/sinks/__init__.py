"""Where events go: one module per kind of target, imported only when it is configured."""

from gateway.forward.sinks.registry import build

__all__ = ["build"]
