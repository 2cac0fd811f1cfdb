"""Whether a password is a user's. Hashes are checked on threads of their own, since each check is meant to be slow.

Invariants:
- A wrong password and an unknown user take the same time.
- A password that was right is remembered as a keyed digest, in memory only: thousands of devices that come back after a
  broken network cost one check each since the start, not one each time.
- At most `MAX_WAITING` checks wait.

Hashes are argon2id (RFC 9106) in the usual text form, `$argon2id$v=19$m=...,t=...,p=...$salt$hash`.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from concurrent.futures import ThreadPoolExecutor

    from argon2 import PasswordHasher

    from gateway.config.settings import User

MAX_WAITING = 10_000
_THREADS = 2
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1
"""OWASP's second choice for argon2id: 19 MiB, two passes, one lane."""


def hash_password(password: str) -> str:
    """A hash for the configuration.

    Raises:
        ImportError: the extra `passwords` is not installed.
    """
    return _hasher().hash(password)


class Passwords:
    """The users of one listener."""

    def __init__(self, users: Iterable[User]) -> None:
        self._plain: dict[str, bytes] = {}
        self._hashes: dict[str, str] = {}
        for user in users:
            if user.password_hash:
                self._hashes[user.username] = user.password_hash
            else:
                self._plain[user.username] = user.password.encode()
        self._decoy = next(iter(self._hashes.values()), "")
        self._key = secrets.token_bytes(32)
        self._remembered: dict[str, bytes] = {}
        self._waiting = 0
        self._pool: ThreadPoolExecutor | None = None
        self._hasher = _hasher() if self._hashes else None

    def __len__(self) -> int:
        return len(self._plain) + len(self._hashes)

    def __contains__(self, username: str) -> bool:
        return username in self._plain or username in self._hashes

    @property
    def is_busy(self) -> bool:
        """Whether so many checks wait that no more should be asked for."""
        return self._waiting >= MAX_WAITING

    def check(self, username: str, password: bytes) -> bool | None:
        """Whether this is the user's password, if that can be said at once; None: `check_hash` must."""
        if username in self._plain:
            return hmac.compare_digest(password, self._plain[username])
        remembered = self._remembered.get(username)
        if remembered is not None and hmac.compare_digest(self._digest(password), remembered):
            return True
        if self._decoy:
            return None
        hmac.compare_digest(password, b"")
        return False

    def check_hash(self, username: str, password: bytes, loop: asyncio.AbstractEventLoop) -> asyncio.Future[bool]:
        """Compute it, on a thread."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only where there are hashes

            self._pool = ThreadPoolExecutor(_THREADS, "passwords")
        self._waiting += 1
        checked = loop.run_in_executor(self._pool, self._verify, username, password)

        def done(checked: asyncio.Future[bool]) -> None:
            self._waiting -= 1
            if not checked.cancelled() and checked.exception() is None and checked.result():
                self._remembered[username] = self._digest(password)

        checked.add_done_callback(done)
        return checked

    def close(self) -> None:
        """End the threads, without waiting for what they do."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, username: str, password: bytes) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 - an extra

        assert self._hasher is not None, "asked only where there are hashes"
        known = self._hashes.get(username)
        try:
            return self._hasher.verify(known or self._decoy, password) and known is not None
        except (InvalidHashError, VerificationError):
            return False

    def _digest(self, password: bytes) -> bytes:
        return blake2b(password, key=self._key, digest_size=32).digest()


def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # noqa: PLC0415 - an extra

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
