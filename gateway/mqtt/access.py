"""Who may connect, as whom, and what they may do then.

A client proves who it is by its certificate, which the TLS handshake has checked, or by a user name and a password.
The answer may take a while: a hash is slow to check, and whoever has guessed wrong too often has to wait.

Invariants:
- Nothing here is ever part of a message or a log line, but user names.
- Every refusal is reported, with who was refused what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.mqtt.attempts import Attempts
from gateway.mqtt.packets import Reason
from gateway.mqtt.passwords import Passwords
from gateway.mqtt.permissions import Permissions

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from gateway.config.settings import Permission, User
    from gateway.mqtt.permissions import Grant


class Peer(NamedTuple):
    """Where a connection comes from."""

    address: str = "?"
    """`host:port`."""
    certified: str = ""
    """The name in its certificate; empty: it has shown none."""

    @property
    def host(self) -> str:
        """Without the port."""
        return self.address.rpartition(":")[0]


class Verdict(NamedTuple):
    """What became of a login."""

    reason: int
    device: str = ""
    """The name under which the client has proved itself; empty: nobody had to."""
    why: str = ""
    """For people, if it was refused."""


class Refusal(NamedTuple):
    """Something that a client wanted and was not given."""

    action: str
    """`connect`, `publish` or `subscribe`."""
    peer: str
    """`host:port`."""
    client_id: str
    """Empty if it was not known yet."""
    user: str
    """As it was claimed, for `connect`; otherwise as it was proved."""
    subject: str
    """The topic or filter; empty for `connect`."""
    reason: int
    """The protocol's reason code."""
    detail: str


class Access:
    """The users and permissions of one listener. Without users, everyone who reaches the port may connect."""

    def __init__(
        self,
        users: Sequence[User] = (),
        permissions: Sequence[Permission] | None = None,
        report: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        """See the module.

        Args:
            users: who may connect by password.
            permissions: what is allowed; None: everything.
            report: called with every refusal.
        """
        self._passwords = Passwords(users)
        self._permissions = None if permissions is None else Permissions(permissions)
        self._attempts = Attempts()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.report = report

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait on this loop."""
        self._loop = loop

    def close(self) -> None:
        """Judge nobody any more."""
        self._passwords.close()

    def admit(
        self,
        peer: Peer,
        username: str | None,
        password: bytes | None,
        now_s: float,
        done: Callable[[Verdict], None],
    ) -> Verdict | None:
        """Judge what a CONNECT brought.

        Args:
            peer: where it comes from, and what its certificate says.
            username: as given.
            password: as given.
            now_s: monotonic.
            done: called with the verdict if it takes time.

        Returns:
            The verdict; None if it takes time.
        """
        if peer.certified:
            return Verdict(Reason.SUCCESS, peer.certified)
        if not self._passwords:
            return Verdict(Reason.SUCCESS)
        if username is None or password is None:
            return Verdict(Reason.NOT_AUTHORIZED, why="no user name and password")
        key = (peer.host, username if username in self._passwords else "")
        wait_s = self._attempts.wait_s(key, now_s)
        if wait_s is None or self._passwords.is_busy:
            return Verdict(Reason.RATE_EXCEEDED, why="too many tries")

        def tell(is_right: bool) -> Verdict:  # noqa: FBT001 - one question, one answer
            if is_right:
                self._attempts.succeeded(key)
                return Verdict(Reason.SUCCESS, username)
            self._attempts.failed(key, now_s + wait_s)
            return Verdict(Reason.BAD_CREDENTIALS, why="user name or password")

        if wait_s:
            assert self._loop is not None, "bound"
            self._loop.call_later(wait_s, self._check, username, password, lambda is_right: done(tell(is_right)))
            return None
        is_right = self._passwords.check(username, password)
        if is_right is not None:
            return tell(is_right)
        self._check(username, password, lambda is_right: done(tell(is_right)))
        return None

    def _check(self, username: str, password: bytes, done: Callable[[bool], None]) -> None:
        is_right = self._passwords.check(username, password)
        if is_right is not None:
            done(is_right)
            return
        assert self._loop is not None, "bound"
        checked = self._passwords.check_hash(username, password, self._loop)
        checked.add_done_callback(lambda future: None if future.cancelled() else done(future.result()))

    def grant(self, device: str, client_id: str) -> Grant | None:
        """What a client that was let in may do; None: everything."""
        return None if self._permissions is None else self._permissions.grant(device, client_id)
