"""A mail that tells people something, as bytes. Pure: the date is an argument.

Invariants:
- Plain text and nothing else; whatever rules say cannot begin a header, end the mail or become markup: a subject is one
  line, and the body is encoded.
- The same parcel makes the same mail, Message-ID included, so that a try that did arrive and was not answered can be
  recognised as one with the next.
- It says that a machine wrote it (RFC 3834), so that no machine answers.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from email.header import Header
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import format_datetime
from typing import TYPE_CHECKING

from gateway.act.notify_wording import body, title

if TYPE_CHECKING:
    from gateway.act.notify_grouping import Parcel
    from gateway.config.settings import EmailSettings

BODY_BYTES = 32 * 1024
# The newer policies read a header's value before they write it: of `=?utf-8?q?a=0D=0ABcc:_b?=` in a text they make two
# headers. This one writes what it is given, and a `Header` in UTF-8 is encoded whole, whatever it looks like.
_POLICY = compat32.clone(linesep="\r\n")


def mail(settings: EmailSettings, parcel: Parcel, wall_ns: int | None) -> bytes:
    """A whole mail, lines ended by CR LF, every byte of it ASCII.

    Args:
        settings: who writes to whom, under which subject.
        parcel: what is said.
        wall_ns: the date, UTC; None if nobody knows it: the server that takes the mail puts its own.
    """
    text = body(parcel, BODY_BYTES, with_reasons=True).replace("\n", "\r\n")
    message = MIMEText(text, "plain", "utf-8", policy=_POLICY)
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.recipients)
    subject = Header(title(settings.subject, parcel), "utf-8", header_name="Subject")
    message["Subject"] = subject  # type: ignore[assignment] # this policy takes one; the stubs know the newer ones
    if wall_ns is not None:
        message["Date"] = format_datetime(datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC))
    message["Message-ID"] = _message_id(settings, parcel)
    message["Auto-Submitted"] = "auto-generated"
    return message.as_bytes()


def domain_of(settings: EmailSettings) -> str:
    """The domain in whose name the gateway writes."""
    return settings.sender.rpartition("@")[2]


def _message_id(settings: EmailSettings, parcel: Parcel) -> str:
    ids = "\n".join([settings.name, *(message.id for message in parcel.messages)])
    return f"<{hashlib.sha256(ids.encode(errors='replace')).hexdigest()[:40]}@{domain_of(settings)}>"
