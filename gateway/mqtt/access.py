"""Who may connect. One question now; the place where rules by topic will be asked later.

Invariants:
- Comparing takes the same time whether the user is unknown or the password is wrong.
- Nothing here is ever part of a message or a log line.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from gateway.mqtt.packets import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.settings import Credentials


class Access:
    """The users of one listener. Without any, everyone who reaches the port may connect."""

    def __init__(self, users: Iterable[Credentials]) -> None:
        self._passwords = {user.username: user.password.encode() for user in users}

    def admit(self, username: str | None, password: bytes | None) -> int:
        """Judge what a CONNECT brought. Returns `Reason.SUCCESS`, or why not."""
        if not self._passwords:
            return Reason.SUCCESS
        if username is None or password is None:
            return Reason.NOT_AUTHORIZED
        expected = self._passwords.get(username)
        is_right = hmac.compare_digest(password, b"" if expected is None else expected)
        return Reason.SUCCESS if expected is not None and is_right else Reason.BAD_CREDENTIALS
