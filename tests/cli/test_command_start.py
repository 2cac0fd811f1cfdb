"""The command itself: what it loads, what it prints where, and how it ends."""

import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp",
    "paho",
    "aiomqtt",
    "influxdb_client",
    "prometheus_client",
    "structlog",
    "zstandard",
    "yaml",
    "uvloop",
)


def test_help_loads_no_server_and_no_client_library():
    """`gateway --help` on a Raspberry Pi answers at once."""
    script = (
        "import sys\n"
        "from gateway.cli import main\n"
        "sys.argv = ['gateway', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage: gateway" in ran.stdout
    assert ran.stderr == "[]\n"


def test_the_version_is_told(gateway):
    """Whoever reports a fault can say with what."""
    ran = gateway("--version")
    assert (ran.code, ran.out.split()[0]) == (0, "gateway")


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("log", "tail", "--nonsense"),
        ("run",),
        ("check",),
        ("log", "info"),
        ("log", "info", "/nowhere/at/all"),
        ("dlq", "list"),
        ("dlq", "show", "-d", "."),
        ("dlq", "replay", "--url", "http://127.0.0.1:1"),
        ("dlq", "replay", "--all"),
        ("dlq", "replay", "--all", "an-id", "--url", "http://127.0.0.1:1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_says_so_on_stderr(gateway, args):
    """A script can tell a typing error from a finding, and its pipe stays clean."""
    ran = gateway(*args)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err


@pytest.mark.parametrize("args", [("log",), ("dlq",), ("log", "tail"), ("dlq", "replay"), ("status",), ("check",)])
def test_every_command_explains_itself(gateway, args):
    """Help is there, for people who have read nothing else."""
    ran = gateway(*args, "--help")
    assert ran.code == 0
    assert f"Usage: gateway {' '.join(args)}" in ran.out
