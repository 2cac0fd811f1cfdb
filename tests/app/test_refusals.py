"""Every refusal is in the audit trail, alone or counted, and a flood of them pushes nothing out."""

import asyncio

import msgspec

from gateway.app.refusals import MAX_KINDS, Refusals
from gateway.config.settings import ListenSettings, Permission, User
from gateway.model import Batch, Refused
from gateway.mqtt.access import Refusal
from gateway.ringlog import inspect


class Log:
    """Keeps batches."""

    def __init__(self):
        self.records = []

    def stamp(self):
        return None

    def append(self, batch):
        assert set(batch.topics) == {"$gateway/refusals"}
        self.records += [msgspec.json.decode(payload, type=Refused) for payload in batch.payloads]


def refusal(**changes):
    what = {"action": "publish", "peer": "10.0.0.1:99", "client_id": "c", "user": "a", "subject": "t", "reason": 0x87}
    return Refusal(**(what | changes), detail="no")


def test_the_first_is_written_at_once_and_repetitions_once_a_minute():
    """The sum of the counts is what happened; another port is no other kind."""
    log = Log()
    refusals = Refusals(log)
    for port in range(50):
        refusals.note(refusal(peer=f"10.0.0.1:{port}"))
    assert [record.count for record in log.records] == [1]
    refusals.flush()
    assert [record.count for record in log.records] == [1, 49]
    refusals.flush()
    refusals.note(refusal())
    assert [record.count for record in log.records] == [1, 49, 1]
    assert {record.host for record in log.records} == {"10.0.0.1"}


def test_a_flood_of_kinds_shares_one_record():
    """A stranger who is somebody else each time."""
    log = Log()
    refusals = Refusals(log)
    for number in range(5_000):
        refusals.note(refusal(client_id=f"c{number}"))
    refusals.flush()
    assert len(log.records) == MAX_KINDS + 2
    assert sum(record.count for record in log.records) == 5_000


async def test_what_the_listener_refuses_is_in_the_audit_log(lives):
    """Through the whole gateway: a message at QoS 0 that nobody hears of, and a login, are found there afterwards."""
    life = lives()
    listen = ListenSettings(
        port=0, users=(User(username="a", password="x"),), permissions=(Permission(publish=("d/{device}/#",)),)
    )
    gateway = await life.begin(listen=listen)
    connect = b"\x10\x13\0\4MQTT\4\xc2\0\x3c\0\1c\0\1a\0\1"
    for password, rest in ((b"x", b"\x30\6\0\3d/bx\xc0\0"), (b"y", b"")):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener.port)
        writer.write(connect + password + rest)
        await asyncio.wait_for(reader.readexactly(6 if rest else 4), 10)
        writer.transport.abort()
    assert await gateway.drain()
    life.gateway = None
    found = [
        msgspec.json.decode(payload, type=Refused)
        for batch in inspect.scan_log(life.home / "data", "audit")
        if isinstance(batch, Batch)
        for topic, payload in zip(batch.topics, batch.payloads, strict=True)
        if topic == "$gateway/refusals"
    ]
    assert [(each.action, each.user, each.subject, each.code) for each in found] == [
        ("publish", "a", "d/b", 0x87),
        ("connect", "a", "", 0x86),
    ]
