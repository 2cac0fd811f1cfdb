"""What an explanation of a difference is.

It rewrites what mosquitto said into what it would have said, had it done as the listener does; where it has nothing to
say it returns None. A difference is explained if what is left after the rewriting is what the listener said, to the
last detail. So an explanation cannot hide more than it spells out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from enum import Enum

from tests.mqtt.differential.compare import Heard, Moment
from tests.mqtt.differential.witness import Reply

MALFORMED, PROTOCOL_ERROR, UNSUPPORTED_VERSION, BAD_TOPIC, BAD_ALIAS = 0x81, 0x82, 0x84, 0x90, 0x94


class Side(Enum):
    """Which of the two the specification supports."""

    OURS = "ours"
    MOSQUITTO = "mosquitto"
    BOTH = "both"


class Ends(Enum):
    """Whether the two are in different states from here on, so that the rest of the script is not compared."""

    NOT = "not"
    UNACKNOWLEDGED = "where the client does not acknowledge what it gets"
    ALWAYS = "always"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Of one difference."""

    name: str
    clause: str
    side: Side
    rewrite: Callable[[Moment], Heard | None]
    ends: Ends = Ends.NOT


def without_releases(moment: Moment, spare: Counter[bytes], missing: Counter[bytes] | None = None) -> tuple[Reply, ...]:
    """Mosquitto's answers without so many PUBRELs of these messages, and with so many of those."""
    left, spare = [], spare.copy()
    for one in moment.theirs.answers:
        if one.kind == "PUBREL" and spare[one.detail[0]] > 0:
            spare[one.detail[0]] -= 1
        else:
            left.append(one)
    left += [Reply("PUBREL", (payload, 0, ())) for payload in (missing or Counter()).elements()]
    return Heard.of(left).answers


def releases(moment: Moment, messages: Counter[Reply]) -> Counter[bytes]:
    """How many PUBRELs these messages have brought."""
    if not moment.story.client(moment.client).acks:
        return Counter()
    return Counter(one.detail[1] for one in messages.elements() if one.detail[2] == 2)
