"""`gateway run` as a life that is forked with everything imported, and stops at a gate if it is told to."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import typer

# What a running gateway imports late: a fork that has it starts in a few milliseconds.
import gateway.app.process
import gateway.cli.configuration
import gateway.mqtt.listener
import gateway.observe.log  # noqa: F401
from gateway.cli.run import run


def main(arguments: list[str]) -> int:
    """Run a gateway. The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.living")
    parser.add_argument("config", type=Path)
    parser.add_argument("notify", help="where it says that it is ready, as systemd does it")
    parser.add_argument("--gate", choices=("start",), help="stop there until continued (SIGCONT)")
    options = parser.parse_args(arguments)
    os.environ["NOTIFY_SOCKET"] = options.notify
    if options.gate:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        run(options.config)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
