"""Every way in which the listener and mosquitto 2.0 are known to differ, as one table.

docs/mqtt.md tells each in plain words, under the same name.
"""

from __future__ import annotations

from tests.mqtt.differential.explanation import MALFORMED, PROTOCOL_ERROR, Ends, Explanation, Side
from tests.mqtt.differential.of_answers import (
    bridge,
    closed_silently,
    mqtt_31,
    never_subscribed,
    no_subscribers,
    other_reason,
    protocol,
    refused_in_words,
    session_lost,
    taken_over,
    tight,
    two_mistakes,
    unknown_id,
)
from tests.mqtt.differential.of_messages import (
    another_member,
    as_many,
    beyond,
    choked,
    delayed,
    delivered,
    halves,
    made_anew,
    no_local_will,
    own_will,
    retained_to_shared,
    reused,
    sys_topics,
    withheld,
)
from tests.mqtt.differential.of_packets import (
    bad_filter,
    has_identifier,
    has_odd_answer,
    has_odd_reason,
    has_reserved_flags,
    is_a_servers,
    is_dup_at_0,
    is_long,
    is_odd_format,
    is_shared_and_not_local,
    odd_characters,
    share_that_is_none,
    takes,
)

EXPLANATIONS: tuple[Explanation, ...] = (
    Explanation("take-over without a word", "MQTT-3.1.4-3", Side.OURS, taken_over),
    Explanation("own will at a take-over", "MQTT-3.1.4-3", Side.BOTH, own_will),
    Explanation("nobody subscribes", "3.4.2.1", Side.BOTH, no_subscribers),
    Explanation("unknown packet id", "3.6.2.1, 3.7.2.1", Side.OURS, unknown_id),
    Explanation("never subscribed with $", "3.11.3", Side.OURS, never_subscribed),
    Explanation("another protocol", "MQTT-3.1.2-2", Side.BOTH, protocol),
    Explanation("a bridge's protocol level", "MQTT-3.1.2-2", Side.BOTH, bridge, ends=Ends.ALWAYS),
    Explanation("MQTT 3.1", "MQTT-3.1.2-2", Side.BOTH, mqtt_31, ends=Ends.ALWAYS),
    Explanation("two mistakes at once", "MQTT-3.1.3-8", Side.BOTH, two_mistakes),
    Explanation("CONNECT refused in words", "3.1.4", Side.BOTH, refused_in_words),
    Explanation("CONNACK that does not fit", "MQTT-3.1.2-24", Side.BOTH, tight, ends=Ends.ALWAYS),
    Explanation("closed without a reason", "4.13.1", Side.OURS, closed_silently),
    Explanation("closed with another reason", "4.13.1", Side.BOTH, other_reason),
    Explanation("DUP at QoS 0", "MQTT-3.3.1-2", Side.OURS, takes(is_dup_at_0, MALFORMED), ends=Ends.ALWAYS),
    Explanation("reserved flags", "MQTT-2.1.3-1", Side.OURS, takes(has_reserved_flags, MALFORMED), ends=Ends.ALWAYS),
    Explanation("a server's packet", "2.1.2", Side.OURS, takes(is_a_servers, PROTOCOL_ERROR), ends=Ends.ALWAYS),
    Explanation("longer than its content", "2.1.4", Side.OURS, takes(is_long, MALFORMED), ends=Ends.ALWAYS),
    Explanation(
        "shared and no local",
        "MQTT-3.8.3-4",
        Side.OURS,
        takes(is_shared_and_not_local, PROTOCOL_ERROR),
        ends=Ends.ALWAYS,
    ),
    Explanation(
        "a reason out of place", "MQTT-3.6.2-1", Side.OURS, takes(has_odd_reason, PROTOCOL_ERROR), ends=Ends.ALWAYS
    ),
    Explanation("payload format", "3.3.2.3.2", Side.BOTH, takes(is_odd_format, PROTOCOL_ERROR), ends=Ends.ALWAYS),
    Explanation(
        "response topic with a wildcard",
        "MQTT-3.3.2-14",
        Side.OURS,
        takes(has_odd_answer, PROTOCOL_ERROR),
        ends=Ends.ALWAYS,
    ),
    Explanation(
        "a client's identifier", "MQTT-3.3.4-6", Side.OURS, takes(has_identifier, PROTOCOL_ERROR), ends=Ends.ALWAYS
    ),
    Explanation("odd characters", "1.5.4", Side.BOTH, odd_characters, ends=Ends.ALWAYS),
    Explanation("a filter that is none", "MQTT-4.13.1-1", Side.MOSQUITTO, bad_filter, ends=Ends.ALWAYS),
    Explanation("a share that is none", "MQTT-4.8.2-1", Side.OURS, share_that_is_none, ends=Ends.ALWAYS),
    Explanation("retained to a shared subscription", "4.8.2", Side.OURS, retained_to_shared, ends=Ends.UNACKNOWLEDGED),
    Explanation("one copy each", "3.3.4", Side.BOTH, delivered(as_many), ends=Ends.UNACKNOWLEDGED),
    Explanation("own will and no local", "MQTT-3.8.3-3", Side.BOTH, no_local_will, ends=Ends.UNACKNOWLEDGED),
    Explanation("a subscription made anew", "MQTT-3.8.4-3", Side.OURS, made_anew, ends=Ends.UNACKNOWLEDGED),
    Explanation(
        "larger than the client takes",
        "MQTT-3.1.2-24",
        Side.OURS,
        beyond("larger than the client takes"),
        ends=Ends.ALWAYS,
    ),
    Explanation("another member", "4.8.2", Side.BOTH, another_member, ends=Ends.ALWAYS),
    Explanation("QoS 2 before its release", "4.3.3", Side.BOTH, withheld("unreleased"), ends=Ends.ALWAYS),
    Explanation("will at a take-over", "MQTT-3.1.2-8", Side.OURS, withheld("taken over"), ends=Ends.ALWAYS),
    Explanation("will after a second CONNECT", "MQTT-3.1.2-8", Side.OURS, withheld("second CONNECT"), ends=Ends.ALWAYS),
    Explanation("session after a second CONNECT", "MQTT-3.1.2-5", Side.OURS, session_lost, ends=Ends.ALWAYS),
    Explanation("will after DISCONNECT", "3.14.4", Side.OURS, withheld("DISCONNECT"), ends=Ends.ALWAYS),
    Explanation("packet id not released", "MQTT-4.3.3-10", Side.OURS, reused, ends=Ends.ALWAYS),
    Explanation("place of a large message", "MQTT-3.1.2-25", Side.OURS, choked, ends=Ends.ALWAYS),
    Explanation("half a SUBSCRIBE", "MQTT-4.13.1-1", Side.OURS, halves, ends=Ends.ALWAYS),
    Explanation(
        "more than the client takes", "MQTT-3.3.4-9", Side.OURS, beyond("more than the client takes"), ends=Ends.ALWAYS
    ),
    Explanation("delayed will of a session that ends", "MQTT-3.1.2-8", Side.OURS, delayed, ends=Ends.ALWAYS),
    Explanation("messages on $SYS", "4.7.2", Side.BOTH, sys_topics, ends=Ends.ALWAYS),
)
