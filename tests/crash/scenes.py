"""The conversations that are cut off at every point: QoS 1 and QoS 2 in both directions, and what surrounds them."""

from __future__ import annotations

from tests.crash.exchanges import STORED, Cast, Scene, Step
from tests.crash.mqtt_witness import V5

METER = f"{STORED}meter/level"
NEWS = "news/local"
"""Only passed on."""


def _published_at_qos_1(cast: Cast) -> list[Step]:
    """A device that publishes, loses its connection before the PUBACK, and says it again with DUP."""
    device = cast.client("device")
    return [
        cast.come(device),
        cast.publish(device, METER, 1),
        cast.publish(device, METER, 1, 3),
        cast.publish(device, METER, 1, 2, until="sent"),
        cast.drop(device),
        cast.come(device),
        cast.publish(device, METER, 1),
    ]


def _published_at_qos_2(cast: Cast) -> list[Step]:
    """Broken off before PUBREC, before PUBREL and before PUBCOMP; packet ids are used again once they are free."""
    device = cast.client("device")
    return [
        cast.come(device),
        cast.publish(device, METER, 2),
        cast.publish(device, METER, 2, 2),
        cast.publish(device, METER, 2, until="stored"),
        cast.drop(device),
        cast.come(device),
        cast.publish(device, METER, 2, until="stored"),
        cast.answer(device),
        cast.publish(device, METER, 2, until="sent"),
        cast.drop(device),
        cast.come(device),
        cast.publish(device, METER, 2, 2),
    ]


def _delivered(cast: Cast, qos: int) -> list[Step]:
    reader, device = cast.client("reader"), cast.client("device")
    return [
        cast.come(reader, device),
        cast.subscribe(reader, {"stored/#": qos, NEWS: qos}),
        cast.publish(device, METER, qos),
        cast.publish(device, NEWS, qos),
    ]


def _delivered_at_qos_1(cast: Cast) -> list[Step]:
    """A reader that does not acknowledge, goes, and gets it again."""
    steps = _delivered(cast, 1)
    reader, device = cast.clients
    return [
        *steps,
        cast.hold(reader, "PUBACK"),
        cast.publish(device, METER, 1, 2),
        cast.see(reader, 4),
        cast.drop(reader),
        cast.publish(device, METER, 1),
        cast.come(reader),
        cast.see(reader, 5),
        cast.answer(reader),
        cast.publish(device, NEWS, 1, 2),
        cast.see(reader, 7),
    ]


def _delivered_at_qos_2(cast: Cast) -> list[Step]:
    """A reader that breaks off before its PUBREC, and before its PUBCOMP."""
    steps = _delivered(cast, 2)
    reader, device = cast.clients
    return [
        *steps,
        cast.hold(reader, "PUBREC"),
        cast.publish(device, METER, 2, 2),
        cast.see(reader, 4),
        cast.drop(reader),
        cast.come(reader),
        cast.answer(reader),
        cast.hold(reader, "PUBCOMP"),
        cast.publish(device, NEWS, 2, 2),
        cast.see(reader, 6),
        cast.drop(reader),
        cast.publish(device, METER, 2),
        cast.come(reader),
        cast.see(reader, 7),
        cast.answer(reader),
        cast.publish(device, METER, 2),
        cast.see(reader, 8),
    ]


def _away(cast: Cast) -> list[Step]:
    """What is published while a subscriber is away waits for it."""
    reader, device = cast.client("reader"), cast.client("device")
    return [
        cast.come(reader, device),
        cast.subscribe(reader, {METER: 2, NEWS: 1}),
        cast.leave(reader),
        cast.publish(device, METER, 2, 2),
        cast.publish(device, METER, 1, 2),
        cast.publish(device, NEWS, 2, 2),
        cast.leave(device),
        cast.come(reader),
        cast.see(reader, 6),
        cast.answer(reader),
        cast.come(device),
        cast.publish(device, METER, 2),
        cast.see(reader, 7),
    ]


def _subscriptions(cast: Cast) -> list[Step]:
    """Confirmed subscriptions stand, and what an UNSUBACK has ended has ended."""
    reader, device = cast.client("reader"), cast.client("device")
    return [
        cast.come(reader, device),
        cast.subscribe(reader, {METER: 2, NEWS: 1}),
        cast.publish(device, METER, 2),
        cast.unsubscribe(reader, METER),
        cast.publish(device, METER, 2),
        cast.publish(device, NEWS, 1),
        cast.unsubscribe(reader, NEWS),
        cast.leave(reader),
        cast.publish(device, NEWS, 2),
        cast.come(reader),
        cast.subscribe(reader, {METER: 1, NEWS: 2}),
        cast.publish(device, METER, 2),
        cast.publish(device, NEWS, 2),
    ]


def _retained(cast: Cast) -> list[Step]:
    """The last word of a topic, replaced and taken back."""
    device, reader = cast.client("device"), cast.client("reader")
    return [
        cast.come(device, reader),
        cast.publish(device, METER, 2, retain=True),
        cast.publish(device, METER, 1, retain=True),
        cast.publish(device, NEWS, 2, retain=True),
        cast.publish(device, "news/old", 1, retain=True),
        cast.clear(device, "news/old", 1),
        cast.subscribe(reader, {METER: 2, "news/#": 2}),
        cast.see(reader, 2),
        cast.clear(device, NEWS, 2),
        cast.leave(reader),
        cast.publish(device, METER, 2, retain=True),
        cast.come(reader),
        cast.unsubscribe(reader, "news/#"),
        cast.subscribe(reader, {"news/#": 1}),
    ]


def _shared(cast: Cast) -> list[Step]:
    """Two who divide a topic; one goes with messages under way."""
    one, two, device = cast.client("one"), cast.client("two"), cast.client("device")
    group = f"$share/readers/{METER}"
    return [
        cast.come(one, two, device),
        cast.subscribe(one, {group: 2}),
        cast.subscribe(two, {group: 2}),
        cast.publish(device, METER, 2, 2),
        cast.hold(one, "PUBREC"),
        cast.publish(device, METER, 2, 2),
        cast.leave(one),
        cast.publish(device, METER, 2),
        cast.leave(two),
        cast.publish(device, METER, 2, 2),
        cast.come(one, two),
        cast.answer(one),
        cast.answer(two),
        cast.unsubscribe(two, group),
        cast.publish(device, METER, 2),
    ]


def _clean_start(cast: Cast) -> list[Step]:
    """A new session knows nothing of the old one: no subscription, no packet id, no message."""
    reader, device = cast.client("reader"), cast.client("device")
    return [
        cast.come(reader, device),
        cast.subscribe(reader, {METER: 2}),
        cast.publish(device, METER, 2, 2, until="stored"),
        cast.leave(reader),
        cast.drop(device),
        cast.come(device, clean=True),
        cast.come(reader, clean=True),
        cast.drop(reader, device),
        cast.come(reader, device),
        cast.answer(device),
        cast.publish(device, METER, 2, 2),
        cast.subscribe(reader, {METER: 2}),
        cast.publish(device, METER, 2),
    ]


def _will(cast: Cast) -> list[Step]:
    """A client whose connection breaks off: its last will is an event like any other, and comes once."""
    watcher = cast.client("watcher")
    words = cast.journal.message(f"{STORED}ghost/will", 2, "ghost", b"<ghost/will>")
    ghost = cast.client("ghost", will=words, expiry_s=2)
    return [
        cast.come(watcher),
        cast.subscribe(watcher, {"stored/#": 2}),
        cast.come(ghost),
        cast.die_with_will(ghost, watcher),
    ]


def _all_at_once(cast: Cast) -> list[Step]:
    """Several who publish in the same instant, at both QoS, to one who is there and one who is not."""
    here, away = cast.client("here"), cast.client("away")
    devices = [cast.client(f"device{number}") for number in range(3)]
    crowd = [
        (device, cast.journal.message(topic, qos, device.name))
        for topic, qos in ((METER, 2), (NEWS, 2), (METER, 1), (METER, 2))
        for device in devices
    ]
    return [
        cast.come(here, away, *devices),
        cast.subscribe(here, {METER: 2, NEWS: 2}),
        cast.subscribe(away, {METER: 2, NEWS: 1}),
        cast.drop(away),
        cast.send(*crowd),
        cast.come(away),
        cast.see(away, len(crowd)),
        cast.see(here, len(crowd)),
        cast.answer(away),
    ]


SCENES = (
    Scene("published at QoS 1", _published_at_qos_1),
    Scene("published at QoS 2", _published_at_qos_2),
    Scene("delivered at QoS 1", _delivered_at_qos_1),
    Scene("delivered at QoS 2", _delivered_at_qos_2),
    Scene("a subscriber that is away", _away),
    Scene("subscriptions", _subscriptions),
    Scene("retained messages", _retained),
    Scene("a shared subscription", _shared),
    Scene("a new session", _clean_start),
    Scene("a last will", _will, (V5,)),
    Scene("all at once", _all_at_once),
)
