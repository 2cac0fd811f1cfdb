"""The rows of the bad-input catalogue that concern topics, sizes and accounts, over a real store."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from structlog.testing import capture_logs

from gateway.config.settings import LogSettings, TopicSettings
from gateway.ingest import Ingest, pipeline
from gateway.ingest.decode import CODES
from gateway.model import Arrivals, Format, Position
from gateway.ringlog import Store, letters_of
from gateway.ringlog.reader import Reader

LIMIT = 2_000
TOPICS = (
    TopicSettings(topic="devices/{device}/climate", max_payload_bytes=LIMIT),
    TopicSettings(topic="devices/{device}/+", format=Format.RAW),
    TopicSettings(topic="plant/#", format=Format.TEXT),
    TopicSettings(topic="$SYS/#", format=Format.TEXT),
    TopicSettings(topic="/leading/+", format=Format.RAW),
    TopicSettings(topic="meters/{meter}", format=Format.NUMBER, max_payload_bytes=64),
)


class Site:
    """A store, its ingest, and what was settled."""

    def __init__(self, data_dir, clock, topics=TOPICS) -> None:
        self.store = Store(data_dir, "gw", LogSettings(compress=False), clock, lambda error: None)
        self.ingest = Ingest(topics, self.store.events, self.store.dead_letters, self.store.committer)
        self.settled = 0

    def accept(self, *messages: tuple[str, bytes], flags: int = 1) -> None:
        topics, payloads = [topic for topic, _ in messages], [payload for _, payload in messages]
        self.ingest.accept(Arrivals(topics, [flags] * len(messages), payloads, self._settle))

    def _settle(self) -> None:
        self.settled += 1

    async def flush(self) -> None:
        await self.store.committer.flush()
        await asyncio.sleep(0)

    async def stored(self) -> list[tuple[str, bytes, int, object]]:
        """Topic, payload, flags and value of every record."""
        await self.flush()
        reader = self.store.reader(Position(0, 0), durable_only=True)
        found = []
        while reader.position.seq < self.store.events.durable.seq:
            batch = await reader.read(1_000)
            found += zip(batch.topics, batch.payloads, batch.flags, batch.values, strict=True)
        return found

    async def letters(self):
        """Every dead letter."""
        await self.flush()
        ring = self.store.dead_letters.ring
        reader = Reader(ring, self.store.storage, Position(0, 0), durable_only=True)
        found = []
        while reader.position.seq < ring.durable.seq:
            found += letters_of(await reader.read(1_000))
        return found


@pytest.fixture
async def site(tmp_path, clock):
    site = Site(tmp_path, clock)
    yield site
    await site.store.close()


@pytest.mark.parametrize(
    "topic",
    [
        "plant/" + "x" * 65_000,
        "plant" + "/a" * 127,
        "plant/with spaces/and umläuts",
        "plant//empty//levels/",
        "plant/{braces}",
        "plant",
        "$SYS/broker/load",
        "/leading/slash",
    ],
)
async def test_odd_topics_are_stored_if_they_are_subscribed(site, topic):
    """MQTT allows them, so they are data."""
    site.accept((topic, b"x"))
    assert [(found, payload) for found, payload, _, _ in await site.stored()] == [(topic, b"x")]
    assert site.settled == 1


@pytest.mark.parametrize(
    "device", ["", "a b", "..", "a..b", "ä", "x" * 65, "a\nb", "a\0b", "{device}", "a%2fb", "a\\b"]
)
async def test_a_captured_level_that_is_no_name_is_refused(site, device):
    """It would become part of a topic, a label or a path elsewhere: nobody hijacks one through it."""
    site.accept((f"devices/{device}/climate", b'{"t": 1}'))
    site.accept((f"devices/{device}/climate", b'{"t": 2}'))  # it is known by now, and stays refused
    letters = await site.letters()
    assert [(letter.code, letter.topic) for letter in letters] == [("topic", f"devices/{device}/climate")] * 2
    assert (site.settled, site.ingest.stored) == (2, 0)


@pytest.mark.parametrize("device", ["a", "A-1_b.c:d", "x" * 64, "00:1A:2B", "-", "."])
async def test_a_captured_level_that_is_a_name_is_taken(site, device):
    """Serial numbers, addresses and the usual separators pass."""
    site.accept((f"devices/{device}/climate", b'{"t": 1}'))
    assert len(await site.stored()) == 1


async def test_a_topic_that_nothing_stores_is_counted_and_settled(site):
    """Law L7: wildcards do not reach into `$SYS`, and what is not meant is not kept."""
    site.accept(("$share/x/y", b"1"), ("devices/a", b"1"), ("devices/a/b/c", b"1"), ("plants/a", b"1"))
    assert await site.stored() == []
    assert (site.ingest.not_stored, site.ingest.received, site.settled) == (4, 4, 1)


async def test_the_first_entry_that_matches_decides(site):
    """Entries are read from the top, as they are written."""
    site.accept(("devices/a/climate", b'{"t": 1}'), ("devices/a/blob", b"\xff\x00"))
    assert [value for *_, value in await site.stored()] == [{"t": 1}, b"\xff\x00"]


async def test_an_oversized_payload_leaves_its_head_and_its_digest(site):
    """What was lost can be told from what was sent, without keeping it."""
    exact, over = b'{"t":"%s"}' % (b"x" * (LIMIT - 8)), b'{"t":"%s"}' % (b"x" * (LIMIT - 7))
    site.accept(("devices/a/climate", exact), ("devices/a/climate", over))
    assert [payload for _, payload, _, _ in await site.stored()] == [exact]
    (letter,) = await site.letters()
    assert (letter.code, letter.payload) == ("too_large", over[:1_024])
    assert hashlib.sha256(over).hexdigest() in letter.detail
    assert f"{len(over)} bytes" in letter.detail


async def test_an_oversized_payload_on_a_bad_topic_is_cut_as_well(site):
    """No way round the limit."""
    site.accept(("devices/a b/climate", b"x" * 100_000))
    (letter,) = await site.letters()
    assert (letter.code, len(letter.payload)) == ("too_large", 1_024)


async def test_empty_payloads_are_events_without_a_value(site):
    """What clears a retained message is told to sinks; it is no reading and no error."""
    site.accept(*((topic, b"") for topic in ("devices/a/climate", "plant/a", "meters/m", "devices/a/blob")))
    assert [(payload, value) for _, payload, _, value in await site.stored()] == [(b"", None)] * 4
    assert site.ingest.rejected == {}


async def test_flags_travel_with_their_records(site):
    """Retained and repeated messages stay recognisable (L9), beside a bad neighbour too."""
    site.accept(("devices/a/climate", b"1"), ("devices/a/climate", b"{"), ("devices/a/climate", b"2"), flags=0x0D)
    assert [flags for _, _, flags, _ in await site.stored()] == [0x0D, 0x0D]
    assert [letter.flags for letter in await site.letters()] == [0x0D]


async def test_every_letter_has_an_id_of_its_own(site):
    """`gateway dlq` names one letter with it."""
    site.accept(*(("devices/a/climate", b"{") for _ in range(5)))
    site.accept(("devices/a/climate", b"}"))
    ids = [letter.id for letter in await site.letters()]
    assert len(set(ids)) == 6
    assert all(each.startswith("gw/") for each in ids)


async def test_a_flood_of_bad_payloads_is_one_line_per_code_and_batch(site):
    """A broken device does not write the gateway's log full."""
    with capture_logs() as lines:
        site.accept(*(("devices/a/climate", payload) for payload in (b"{", b"NaN", b'{"a":1,"a":1}') * 100))
    told = [(line["event"], line["code"]) for line in lines]
    assert sorted(told) == [("payload_rejected", "duplicate_key"), ("payload_rejected", "json")]
    assert site.ingest.rejected == {"json": 200, "duplicate_key": 100}


async def test_what_is_remembered_of_topics_is_bounded(site, monkeypatch):
    """A device that invents topics costs bounded memory, and is still routed right."""
    monkeypatch.setattr(pipeline, "_MAX_ROUTES", 50)
    for number in range(300):
        site.accept((f"devices/d{number}/climate", b"1"), (f"other/{number}", b"1"))
        assert len(site.ingest._routes) <= 50
    assert len(await site.stored()) == 300
    assert site.ingest.not_stored == 300


async def test_whatever_comes_every_record_is_accounted_for_once_and_in_order(site, seed):
    """Laws L4, L7: random batches of good, bad, empty and unmeant; nothing is lost, doubled or out of place."""
    rng = random.Random(seed)
    topics = ["devices/a/climate", "devices/b c/climate", "plant/x", "meters/m", "nobody/asked"]
    payloads = [b'{"n":%d}', b"%d", b"", b"{%d", b'{"a":%d,"a":1}', b"\xff%d", b"x" * (LIMIT + 1)]
    sent: list[tuple[str, bytes]] = []
    for _ in range(120):
        batch = []
        for _ in range(rng.randint(1, 12)):
            payload = rng.choice(payloads)
            batch.append((rng.choice(topics), payload % len(sent) if b"%d" in payload else payload))
            sent.append(batch[-1])
        site.accept(*batch)
    stored = [(topic, payload) for topic, payload, _, _ in await site.stored()]
    letters = await site.letters()
    rest = iter(sent)
    assert all(record in rest for record in stored), "stored records are a subsequence of what was sent"
    assert len(stored) == site.ingest.stored
    assert len(letters) == sum(site.ingest.rejected.values())
    assert site.ingest.received == len(sent) == len(stored) + len(letters) + site.ingest.not_stored
    assert site.ingest.not_stored == sum(topic == "nobody/asked" for topic, _ in sent)
    assert set(site.ingest.rejected) <= set(CODES)
    assert site.settled == 120


async def test_what_to_subscribe_to_at_a_broker_covers_every_entry(site):
    """Captures become `+`, and two entries with one filter are one subscription."""
    both = Ingest(
        (TopicSettings(topic="a/{x}"), TopicSettings(topic="a/+"), TopicSettings(topic="b/#")),
        site.store.events,
        site.store.dead_letters,
        site.store.committer,
    )
    assert both.mqtt_filters() == ["a/+", "b/#"]
