"""Every refusal is in the audit trail, alone or counted, and a flood of them pushes nothing out."""

import msgspec

from gateway.app.refusals import MAX_KINDS, Refusals
from gateway.model import Refused
from gateway.mqtt.access import Refusal


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
