"""`gateway demo`: the whole thing on this machine, with no set-up."""

from pathlib import Path
from typing import Annotated

import typer

_SHORTEST_S = 10.0


def demo(
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long: 30s, 5m.")] = "60s",
    devices: Annotated[int, typer.Option("--devices", min=4, max=500, help="How many simulated devices.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same world.")] = 7,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Keep the data there, to look at it afterwards.")
    ] = None,
) -> None:
    """Devices, a thermostat, and an uplink that is cut for a third of the time; ends with where every event went.

    Exit code 0 only if it all adds up.
    """
    from gateway.config.scalars import Wrong, duration_s

    wanted_s = duration_s(duration)
    if isinstance(wanted_s, Wrong) or wanted_s < _SHORTEST_S:
        detail = wanted_s.message if isinstance(wanted_s, Wrong) else f"at least {_SHORTEST_S:.0f}s"
        raise typer.BadParameter(detail, param_hint="--for")
    if data_dir is not None and (data_dir / "data").exists():
        # Its counts go on from the earlier run's, and today's upstream has not seen what was delivered then.
        raise typer.BadParameter(f"{data_dir} holds the data of an earlier run", param_hint="--data-dir")

    from gateway.cli.demo_run import run_demo

    raise typer.Exit(run_demo(wanted_s, devices, seed, data_dir))
