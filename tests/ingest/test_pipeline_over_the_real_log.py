"""From arrivals to records, over a real store."""

from __future__ import annotations

import asyncio

import pytest

from gateway.config.settings import LogSettings, TopicSettings
from gateway.ingest import Ingest
from gateway.model import Arrivals, Format, Position
from gateway.ringlog import Store, letters_of

TOPICS = (
    TopicSettings(topic="devices/{device}/climate", max_payload_bytes=2_000),
    TopicSettings(topic="meters/{meter}", format=Format.NUMBER),
)


@pytest.fixture
async def site(tmp_path, clock):
    """A store and its ingest."""
    store = Store(tmp_path, "gw", LogSettings(compress=False), clock, lambda error: None)
    yield store, Ingest(TOPICS, store.events, store.dead_letters, store.committer)
    await store.close()


def arrivals(settled, *messages):
    """Arrivals whose settling is noted under their number."""
    number = len(settled["given"])
    settled["given"].append(number)
    return Arrivals(
        topics=[topic for topic, _ in messages],
        flags=[1] * len(messages),
        payloads=[payload for _, payload in messages],
        settle=lambda: settled["done"].append(number),
    )


async def stored(store):
    """`(topic, payload, value)` of every durable record."""
    reader = store.reader(Position(0, 0), durable_only=True)
    found = []
    while reader.position.seq < store.events.durable.seq:
        batch = await reader.read(1_000)
        found += zip(batch.topics, batch.payloads, batch.values, strict=True)
    return found


async def letters(store):
    """Every durable dead letter."""
    from gateway.ringlog.reader import Reader

    reader = Reader(store.dead_letters.ring, store.storage, Position(0, 0), durable_only=True)
    return letters_of(await reader.read(1_000)) if store.dead_letters.ring.durable.seq else []


async def settle(store):
    await store.committer.flush()
    await asyncio.sleep(0)


GOOD = ("devices/a/climate", b'{"temperature": 21.5}')


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (("devices/a/climate", b'{"temperature": NaN}'), "json"),
        (("devices/a/climate", b'{"t": 1, "t": 2}'), "duplicate_key"),
        (("devices/a/climate", b'{"t": "\xff"}'), "utf8"),
        (("devices/a b/climate", b'{"t": 1}'), "topic"),
        (("meters/m1", b"1_000"), "number"),
        (("devices/a/climate", b'{"t": "' + b"x" * 3_000 + b'"}'), "too_large"),
    ],
)
async def test_what_is_refused_is_kept_with_its_reason_and_its_neighbours_are_stored(site, message, code):
    """Laws L4, L7: a bad record costs itself alone, and its batch is acknowledged all the same."""
    store, ingest = site
    settled = {"given": [], "done": []}
    ingest.accept(arrivals(settled, GOOD, message, ("meters/m1", b" 21.5 "), GOOD))
    await settle(store)
    assert [payload for _, payload, _ in await stored(store)] == [GOOD[1], b" 21.5 ", GOOD[1]]
    (letter,) = await letters(store)
    assert (letter.topic, letter.code, letter.stage) == (message[0], code, "ingest")
    assert letter.payload == message[1][:1_024] if code == "too_large" else letter.payload == message[1]
    assert settled["done"] == [0]
    assert ingest.received == ingest.stored + ingest.not_stored + sum(ingest.rejected.values()) == 4


async def test_an_unrouted_topic_is_settled_and_not_stored(site):
    """Law L7: what is not to be stored is counted as that."""
    store, ingest = site
    settled = {"given": [], "done": []}
    ingest.accept(arrivals(settled, ("chat/room", b"hello")))
    ingest.accept(arrivals(settled, GOOD, ("chat/room", b"hello")))
    await settle(store)
    assert len(await stored(store)) == 1
    assert settled["done"] == [0, 1]
    assert (ingest.received, ingest.stored, ingest.not_stored) == (3, 1, 2)


async def test_nothing_is_settled_before_it_is_durable_and_batches_settle_in_order(site):
    """Law L1: the acknowledgement waits for the sync."""
    store, ingest = site
    settled = {"given": [], "done": []}
    for _ in range(20):
        ingest.accept(arrivals(settled, GOOD))
        assert len(settled["done"]) <= store.events.durable.seq
        await asyncio.sleep(0)
    await settle(store)
    assert settled["done"] == list(range(20))


async def test_values_come_decoded_with_the_batch_and_again_from_disk(site, tmp_path):
    """Law: whoever reads gets the same values, from memory or later."""
    from gateway.ingest import values_of
    from gateway.ringlog.inspect import scan_log

    store, ingest = site
    ingest.accept(arrivals({"given": [], "done": []}, GOOD, ("meters/m1", b"7"), ("meters/m1", b"")))
    await settle(store)
    assert [value for _, _, value in await stored(store)] == [{"temperature": 21.5}, 7, None]
    (batch,) = scan_log(tmp_path)
    assert values_of(batch) == [{"temperature": 21.5}, 7, None]
