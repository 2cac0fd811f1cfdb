"""The error family, split by who must act.

Expected badness in data is a value (`gateway.model.Rejection`), never an exception. What is raised says by its class
who can put it right; every class below carries the coordinates that this person needs.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Root of the family. Anything else that escapes a module is a bug."""


class ConfigError(GatewayError):
    """The operator must edit a file: no restart will help. The process exits with code 2.

    Attributes:
        problems: every problem found, each already worded as `path:line:column: message`.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class PeerError(GatewayError):
    """A device, a broker or an upstream misbehaved or is away: drop it, or try again later."""


class ProtocolError(PeerError):
    """A peer broke the protocol. The connection is closed.

    Attributes:
        reason_code: MQTT 5 reason code to send in DISCONNECT (3.1.1 has none and just closes).
    """

    def __init__(self, message: str, reason_code: int = 0x82) -> None:
        super().__init__(message)
        self.reason_code = reason_code


class StorageError(GatewayError):
    """The disk refused a write, a sync or a read."""


class LogInUseError(StorageError):
    """Another process holds the data directory."""


class LogCorruptError(StorageError):
    """Stored bytes are not what was written.

    Attributes:
        segment: file name. offset: first damaged byte. why: what is wrong there.
    """

    def __init__(self, segment: str, offset: int, why: str) -> None:
        super().__init__(f"{segment}:{offset}: {why}")
        self.segment = segment
        self.offset = offset
        self.why = why


class LogVersionError(LogCorruptError):
    """Stored bytes are sound and were written by a newer release. Nothing was changed."""
