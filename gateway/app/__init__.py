"""The composition root: builds every stage, starts them, and drains them in a stated order."""

from gateway.app.process import run_gateway

__all__ = ["run_gateway"]
