"""What a run came to, for people as one line and for programs as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from firmware_sim.account import Account

_NAMED_IN_LINE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Totals over all devices, and the last sequence number of each."""

    elapsed_s: float
    offered: int
    """Made by the devices, after loss and silence, duplicates included."""
    sent: int
    resent: int
    acked: int
    unacknowledged: int
    dropped: int
    """Gave way to newer ones while the broker was away."""
    queued: int
    """Never sent, since the end came first."""
    commands: int
    connects: int
    never_connected: list[str]
    """Connections that never stood, each with its latest error."""
    faults: dict[str, int]
    """How often each fault struck."""
    last_seq: dict[str, int]
    """Of the latest message that each device sent."""

    @classmethod
    def of(
        cls,
        elapsed_s: float,
        accounts: Mapping[str, Account],
        faults: Mapping[str, int],
        *,
        connects: int,
        never_connected: list[str],
    ) -> Self:
        """Add up accounts."""
        counts = accounts.values()
        return cls(
            elapsed_s=round(elapsed_s, 3),
            offered=sum(account.offered for account in counts),
            sent=sum(account.sent for account in counts),
            resent=sum(account.resent for account in counts),
            acked=sum(account.acked for account in counts),
            unacknowledged=sum(account.unacknowledged for account in counts),
            dropped=sum(account.dropped for account in counts),
            queued=sum(account.queued for account in counts),
            commands=sum(account.commands for account in counts),
            connects=connects,
            never_connected=never_connected,
            faults=dict(faults),
            last_seq={name: account.last_seq for name, account in accounts.items()},
        )

    def line(self) -> str:
        """Everything on one line."""
        named = [f"{name}={seq}" for name, seq in list(self.last_seq.items())[:_NAMED_IN_LINE]]
        more = len(self.last_seq) - len(named)
        faults = ", ".join(f"{name} {count}" for name, count in self.faults.items())
        parts = [
            f"{self.elapsed_s:.1f} s",
            f"sent {self.sent}",
            f"acknowledged {self.acked}",
            f"dropped {self.dropped}",
            f"queued {self.queued}",
            f"commands {self.commands}",
            *([f"faults: {faults}"] if faults else []),
            f"last seq: {' '.join(named)}" + (f" and {more} more" if more else ""),
        ]
        return " | ".join(parts)

    def json(self) -> str:
        """Everything as one JSON object."""
        return json.dumps(asdict(self), ensure_ascii=False)
