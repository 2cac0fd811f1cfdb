"""Where things are: the options by which commands are told of a configuration or a data directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from gateway.config.settings import Settings

ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The gateway's configuration.")
]
DataDirArgument: TypeAlias = Annotated[Path | None, typer.Argument(metavar="DATA_DIR", help="The data directory.")]
DataDirOption: TypeAlias = Annotated[
    Path | None, typer.Option("--data-dir", "-d", metavar="DIR", help="The data directory.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_settings(config: Path) -> "Settings":
    """Read a configuration.

    Raises:
        ConfigError: with every problem in it.
    """
    from gateway.config.loader import load

    return load(config).settings


def find_data_dir(argument: Path | None, option: Path | None, config: Path | None) -> Path:
    """The data directory that the operator means, told in exactly one way.

    Raises:
        ConfigError: the configuration cannot be read.
        typer.BadParameter: told in no way, or in several, or it is no directory.
    """
    told = [place for place in (argument, option, config) if place is not None]
    if len(told) != 1:
        raise typer.BadParameter("give one of DATA_DIR, --data-dir DIR or --config FILE")
    data_dir = load_settings(config).data_dir if config is not None else told[0]
    if not data_dir.is_dir():
        raise typer.BadParameter(f"{data_dir} is not a directory")
    return data_dir
