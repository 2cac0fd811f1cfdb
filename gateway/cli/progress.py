"""How far a long reading has come: a bar on stderr, where somebody is looking; nothing otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID


class Reading:
    """A context in which so many bytes are read. Only a terminal gets a bar, and only then is `rich` loaded."""

    def __init__(self, label: str, total_bytes: int, *, wanted: bool = True) -> None:
        """Args: wanted: False where a bar would be in the way of what is printed."""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if wanted and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._progress.add_task(label, total=total_bytes)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, size_bytes: int) -> None:
        """So many bytes more have been read."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, size_bytes)

    def tell(self, line: str) -> None:
        """A line on stderr, above the bar."""
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr)
