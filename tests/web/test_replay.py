"""Dead letters put back into a real log: what ends up where, in what order, and what a full disk may cost."""

import asyncio
import random

import pytest

from gateway.config.settings import LogSettings, TopicSettings
from gateway.errors import StorageError
from gateway.ingest import Ingest
from gateway.model import DERIVED, REPLAYED, Batch, DeadLetter
from gateway.ringlog import Store, inspect
from gateway.web.deadletters import Ledger, ReplayRequest
from gateway.web.replay import Replayer, read_letters

TOPICS = (TopicSettings(topic="devices/{device}/climate"),)
ALL = ReplayRequest(all=True)


def letter(name: str, **changes) -> DeadLetter:
    fields = {
        "id": name,
        "topic": "devices/a/climate",
        "payload": b'{"t": 21.5}',
        "flags": 1,
        "stage": "cloud",
        "code": "http_400",
        "detail": "no",
        "attempts": 1,
        "first_wall_ns": 1,
        "last_wall_ns": 2,
    }
    return DeadLetter(**(fields | changes))


class House:
    """An open store with what replays into it."""

    def __init__(self, data_dir, clock):
        self.data_dir = data_dir
        self.store = Store(data_dir, "g", LogSettings(), clock, lambda error: None)
        self.ingest = Ingest(TOPICS, self.store.events, self.store.dead_letters, self.store.committer)
        self.replay = Replayer(self.store, data_dir, self.ingest)

    def events(self):
        return [
            (event.topic, event.payload, event.flags)
            for batch in inspect.scan_log(self.data_dir)
            if isinstance(batch, Batch)
            for event in batch.events()
        ]


@pytest.fixture
async def house(tmp_path, clock):
    house = House(tmp_path / "data", clock)
    yield house
    await house.store.close()


async def test_a_letter_becomes_an_event_marked_replayed(house):
    """It is in the log, durable, and marked, so that no actuator moves because of it (L9)."""
    await house.store.dead_letters.store([letter("a")])
    result = await house.replay(ALL)
    assert (result.replayed, result.refused) == (("a",), {})
    assert house.events() == [("devices/a/climate", b'{"t": 21.5}', 1 | REPLAYED)]
    assert house.store.events.durable == house.store.events.appended


async def test_a_replay_is_noted_and_not_repeated(house):
    """`--all` twice, and two operators at once, put each event back once."""
    await house.store.dead_letters.store([letter("a"), letter("b")])
    first, second = await asyncio.gather(house.replay(ALL), house.replay(ALL))
    assert first.replayed + second.replayed == ("a", "b")
    assert (await house.replay(ALL)).replayed == ()
    assert len(house.events()) == 2
    assert Ledger(read_letters(house.data_dir)).waiting() == []


async def test_today_s_configuration_decides(house):
    """What ingest would refuse is refused again, under a new letter; what nothing stores stays where it is."""
    await house.store.dead_letters.store(
        [letter("bad", payload=b"{", stage="ingest", code="json"), letter("lost", topic="other/x"), letter("good")]
    )
    result = await house.replay(ALL)
    assert result.replayed == ("good",)
    assert set(result.refused) == {"bad", "lost"}
    assert "other/x" in result.refused["lost"]
    waiting = Ledger(read_letters(house.data_dir)).waiting()
    assert [(one.id != "bad", one.topic, one.code) for one in waiting] == [
        (True, "other/x", "http_400"),
        (True, "devices/a/climate", "json"),
    ]


async def test_a_derived_event_goes_straight_back(house):
    """What a rule had made needs no entry in `ingest.topics`."""
    await house.store.dead_letters.store([letter("d", topic="derived/x", flags=1 | DERIVED)])
    assert (await house.replay(ALL)).replayed == ("d",)
    assert house.events() == [("derived/x", b'{"t": 21.5}', 1 | DERIVED | REPLAYED)]


async def test_letters_that_are_not_yet_written_are_found(house):
    """An operator who has just seen a rejection counted can replay it."""
    house.store.dead_letters.append([letter("fresh")])
    assert (await house.replay(ReplayRequest(ids=("fresh",)))).replayed == ("fresh",)


async def test_a_disk_that_refuses_leaves_the_letters_waiting(house, monkeypatch):
    """Nothing is noted as put back that is not on disk: the worst case is a repetition."""
    await house.store.dead_letters.store([letter("a")])

    def refuse(batches, *, sync):
        if batches:
            raise StorageError("no space left on device")

    monkeypatch.setattr(house.store.events, "write", refuse)
    with pytest.raises(StorageError):
        await house.replay(ALL)
    assert [one.id for one in Ledger(read_letters(house.data_dir)).waiting()] == ["a"]


async def test_many_letters_are_put_back_in_their_order(house, seed):
    """Order within the dead-letter log is order in the log (L4)."""
    rng = random.Random(seed)
    letters = [letter(f"id{n}", payload=b'{"n": %d}' % n) for n in range(500)]
    await house.store.dead_letters.store(letters)
    some = rng.sample(letters, 100)
    result = await house.replay(ReplayRequest(ids=tuple(one.id for one in some)))
    wanted = sorted(int(one.id[2:]) for one in some)
    assert [payload for _, payload, _ in house.events()] == [b'{"n": %d}' % n for n in wanted]
    assert len(result.replayed) == 100
