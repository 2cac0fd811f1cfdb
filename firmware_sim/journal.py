"""What was sent and what was acknowledged, as JSON lines: the oracle that tests hold the receiver against.

    {"event": "sent", "t_s": 1.204, "device": "greenhouse", "topic": "devices/greenhouse/climate", "seq": 17}

    sent     handed to the connection for the first time
    resent   handed to it again, because it was refused when the connection broke
    acked    PUBACK received
    dropped  gave way to a newer message while offline; never sent
    command  received; has `payload` in place of `seq`

Invariants:
- `acked` is noted after the PUBACK was read: whoever finds an `acked` line may rely on it. A message with `sent` alone,
  or of the last moments before a kill with no line at all, may or may not have arrived.
- Lines are written whole. A killed process loses the lines of its last moments, never half a claim.
- `t_s` is real time since the fleet started.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from firmware_sim.message import Message

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Journal:
    """An open journal. The file is truncated.

    Args:
        path: where to write.
        elapsed_s: real time since the fleet started.

    Raises:
        OSError: if the file cannot be written.
    """

    def __init__(self, path: Path, elapsed_s: Callable[[], float]) -> None:
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._elapsed_s = elapsed_s
        self._lines: list[str] = []

    def note(self, event: str, message: Message) -> None:
        """Note what became of a message."""
        self._lines.append(
            f'{{"event":"{event}","t_s":{self._elapsed_s():.6f},"device":{_encode(message.device)},'
            f'"topic":{_encode(message.topic)},"seq":{message.seq}}}\n'
        )

    def note_command(self, device: str, topic: str, payload: bytes) -> None:
        """Note a command that arrived."""
        fields = {"event": "command", "t_s": round(self._elapsed_s(), 6), "device": device, "topic": topic}
        self._lines.append(_encode({**fields, "payload": payload.decode(errors="replace")}) + "\n")

    def flush(self) -> None:
        """Hand everything noted so far to the operating system."""
        self._file.write("".join(self._lines))
        self._file.flush()
        self._lines.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()
