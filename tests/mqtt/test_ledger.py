"""What is kept of clients: what entries add up to is what was there, at any moment of any life."""

from __future__ import annotations

import random

import pytest

from gateway.mqtt.exchange import Exchange, Limits
from gateway.mqtt.keeping import PATIENCE_S, dump, restore
from gateway.mqtt.ledger import (
    Bound,
    Ended,
    KeptMessage,
    Ledger,
    Queued,
    Retained,
    State,
    Subscribed,
    Taken,
    Taker,
    encode_entries,
    encode_state,
)
from gateway.mqtt.packets import V5, V311, Subscription, Will
from gateway.mqtt.session import Message
from gateway.mqtt.turn import Turn
from tests.mqtt.test_session import Outlet

FILTERS = ("a/#", "a/b", "+/b", "c", "#")
TOPICS = ("a/b", "a/c", "c", "d/b")
CLIENTS = ("one", "two", "three")
OFFSET_NS = 5_000_000_000


class Life:
    """An exchange, the disk that its entries go to, and clients that do as they like."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_s = 100.0
        self.disk: list[tuple[bytes, int]] = []
        self.snapshot: bytes | None = None
        self.exchange = Exchange(Limits(queued=5), keeps=True)
        self.exchange.log_offset_ns = OFFSET_NS
        self.outlets: dict[str, Outlet] = {}
        self.turns: list[Turn] = []

    def write(self, extra=()):
        """The end of a turn: what was noted is on disk."""
        entries, _ = self.exchange.notes.take()
        entries += extra
        if entries:
            self.disk.append((encode_entries(entries), round(self.now_s * 1e9) + OFFSET_NS))

    def ledger(self) -> State:
        """What a start would find."""
        ledger = Ledger(self.snapshot)
        for payload, at_ns in self.disk:
            ledger.add(payload, at_ns)
        return ledger.state

    def step(self) -> None:
        """Something happens."""
        name = self.rng.choice(CLIENTS)
        session = self.exchange.sessions.get(name)
        act = self.rng.choice(
            [self.come, self.go, self.subscribe, self.unsubscribe, self.publish, self.publish, self.settle, self.settle]
            + [self.answer] * 4
            + [self.wait, self.own]
        )
        act(name, session)
        self.write()

    def come(self, name, _session) -> None:
        outlet = Outlet(self.rng.choice([V311, V5]))
        will = Will("w", b"x", 1, retain=False, properties={}, delay_s=self.rng.choice([0, 50]))
        session, _ = self.exchange.attach(
            name,
            outlet,
            clean=self.rng.random() < 0.1,
            expiry_s=self.rng.choice([0.0, 60.0, 300.0, 300.0]),
            will=will if self.rng.random() < 0.5 else None,
            keepalive_s=30,
            window=self.rng.choice([2, 100]),
        )
        outlet.on_cut = lambda: self.exchange.detach(session, outlet, self.now_s, with_will=True)
        session.pump(self.now_s)

    def go(self, _name, session) -> None:
        if session is not None and session.outlet is not None:
            self.exchange.detach(session, session.outlet, self.now_s, with_will=self.rng.random() < 0.5)

    def subscribe(self, _name, session) -> None:
        if session is not None:
            mqtt_filter = self.rng.choice(FILTERS)
            self.exchange.subscribe(session, mqtt_filter, Subscription(self.rng.choice([0, 1, 2])))
            self.exchange.send_retained(session, mqtt_filter, session.subscriptions[mqtt_filter], self.now_s)

    def unsubscribe(self, _name, session) -> None:
        if session is not None:
            self.exchange.unsubscribe(session, self.rng.choice(FILTERS))

    def publish(self, _name, session) -> None:
        turn = Turn()
        turn.senders.append((0, None))
        for _ in range(self.rng.randint(1, 3)):
            payload = self.rng.choice([b"", b"x", b"y"])
            properties = {2: 40} if self.rng.random() < 0.2 else {}
            qos, retain = self.rng.choice([0, 1, 2]), self.rng.random() < 0.3
            turn.add(self.rng.choice(TOPICS), payload, qos=qos, retain=retain, properties=properties)
        self.write(self.exchange.plan(turn, self.now_s))
        self.turns.append(turn)

    def own(self, _name, _session) -> None:
        """What the gateway says itself is not kept."""
        message = Message(self.rng.choice(TOPICS), b"own", 1, retain=self.rng.random() < 0.3)
        self.exchange.publish(message, self.now_s)

    def settle(self, _name, _session) -> None:
        if self.turns:
            self.exchange.route(self.turns.pop(0), self.now_s)

    def answer(self, _name, session) -> None:
        if session is None or not session.in_flight or session.outlet is None:
            return
        mid = self.rng.choice(list(session.in_flight))
        held = session.in_flight[mid]
        if held is None:
            session.complete(mid, self.now_s)
        elif held.qos == 1:
            session.acknowledge(mid, self.now_s)
        else:
            session.receive(mid, self.rng.choice([0, 0, 0x97]), self.now_s)

    def wait(self, _name, _session) -> None:
        self.now_s += self.rng.choice([1.0, 20.0, 100.0])
        self.exchange.tick(self.now_s)
        self.exchange.take_wills()

    def save(self) -> None:
        """A snapshot in place of the entries so far."""
        self.snapshot, self.disk = encode_state(dump(self.exchange)), []

    def die(self) -> None:
        """The process is killed: what was on disk is all there is."""
        state = self.ledger()
        self.exchange = Exchange(Limits(queued=5), keeps=True)
        self.exchange.log_offset_ns = OFFSET_NS
        restore(self.exchange, state, self.now_s)
        self.turns.clear()
        self.save()


def _comparable(state: State, now_s: float):
    """As values; of a message that its client has, only the packet id still matters; what has expired, not at all."""
    now_ns = round(now_s * 1e9) + OFFSET_NS
    sessions = {}
    for client_id, session in state.sessions.items():
        items = {
            number: (item.mid, item.is_received, None if item.is_received else (item.message, item.qos, item.retain))
            for number, item in session.items.items()
        }
        if session.left_ns is None and session.expiry_s == 0:
            continue  # it ends with its connection
        left_ns = None if session.left_ns is None else round(session.left_ns / 1e6)
        due_ns = None if session.will_due_ns is None else round(session.will_due_ns / 1e6)
        fields = (session.version, session.expiry_s, session.will, left_ns, due_ns, session.subscriptions)
        sessions[client_id] = (fields, items, sorted(session.taken))
    lasting = [each for each in state.retained.values() if each.expires_ns is None or each.expires_ns > now_ns]
    return sessions, {message.topic: message.payload for message in lasting}


def test_what_the_entries_add_up_to_is_what_is_there(seed):
    """L12: after every step of random lives, with snapshots and kills in between."""
    rng = random.Random(seed)
    for _ in range(60):
        life = Life(rng)
        for step in range(150):
            life.step()
            now_s = life.now_s
            assert _comparable(life.ledger(), now_s) == _comparable(dump(life.exchange), now_s), (seed, step)
            if rng.random() < 0.03:
                life.save()
            if rng.random() < 0.02:
                life.die()


def test_what_comes_back_is_what_was_there(seed):
    """A start gives the sessions, subscriptions and messages that a snapshot of the dead life would have given."""
    rng = random.Random(seed)
    for _ in range(200):
        life = Life(rng)
        for _ in range(80):
            life.step()
        while life.turns:
            life.settle("", None)
            life.write()
        before = life.ledger()
        life.die()
        after = dump(life.exchange)
        kept = {name for name, each in before.sessions.items() if each.left_ns is not None or each.expiry_s > 0}
        assert set(after.sessions) == kept, seed
        for name in kept:
            one, other = before.sessions[name], after.sessions[name]
            assert one.subscriptions == other.subscriptions, seed
            assert {n: (i.mid, i.is_received) for n, i in one.items.items()} == {
                n: (i.mid, i.is_received) for n, i in other.items.items()
            }, seed
            assert other.next_number > max(one.items, default=0), seed
        now_ns = round(life.now_s * 1e9) + OFFSET_NS
        lasting = {t for t, each in before.retained.items() if each.expires_ns is None or each.expires_ns > now_ns}
        assert after.retained.keys() == lasting, seed


def test_what_stands_behind_a_bound_that_was_not_reached_counts_for_nothing():
    """Its sender was not answered and will send it again: then it must be stored, and reach its subscribers once."""
    life = Life(random.Random(1))
    life.exchange.attach("dev", Outlet(), clean=False, expiry_s=60, will=None)
    life.write()
    message = KeptMessage("t", b"x", 2, retain=True, properties={}, expires_ns=None)
    behind = [Taken("dev", (7,)), Queued(message, (Taker("dev", 1, 2, False, ()),)), Retained(message)]
    for epoch, end_seq, reached in ((3, 50, True), (3, 51, False), (2, 99, True)):
        ledger = Ledger(encode_state(life.ledger()), reached={2: 99, 3: 50}.__getitem__)
        ledger.add(encode_entries([Subscribed("dev", "t", Subscription(2)), Bound(epoch, end_seq), *behind]), 0)
        session = ledger.state.sessions["dev"]
        assert list(session.subscriptions) == ["t"], "what stands before it is not bound"
        assert bool(session.taken) == bool(session.items) == bool(ledger.state.retained) == reached


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x09\x80\x80", b"\x93\x02\x80\x80"])
def test_a_snapshot_that_cannot_be_read_is_refused_in_one_sentence(data):
    """The caller goes on without it, and says so."""
    with pytest.raises(ValueError, match="what was kept of the clients"):
        Ledger(data)


def test_an_entry_about_what_is_gone_changes_nothing():
    """Late entries come behind the end of what they are about."""
    ledger = Ledger(encode_state(State()))
    ledger.add(encode_entries([Ended("dev"), Taken("dev", (1,))]), 0)
    assert ledger.state == State()


def test_a_client_that_was_there_when_the_gateway_died_gets_time_to_come_back():
    """Its will is not published because the gateway was restarted, but because it does not come back."""
    life = Life(random.Random(1))
    will = Will("gone", b"dev", 1, retain=False, properties={}, delay_s=0)
    life.exchange.attach("dev", Outlet(), clean=False, expiry_s=3_600, will=will, keepalive_s=100)
    life.write()
    life.die()
    life.exchange.tick(life.now_s + 149)
    assert not life.exchange.take_wills()
    life.exchange.tick(life.now_s + 151)
    assert life.exchange.take_wills() == [will]
    assert PATIENCE_S < 149


def test_a_will_outlives_an_orderly_stop():
    """[MQTT-3.1.2-8]: the gateway goes, not the client; who does not come back to the next one is announced then."""
    life = Life(random.Random(1))
    will, outlet = Will("gone", b"dev", 1, retain=False, properties={}, delay_s=0), Outlet()
    session, _ = life.exchange.attach("dev", outlet, clean=False, expiry_s=3_600, will=will, keepalive_s=10)
    life.exchange.detach(session, outlet, life.now_s, with_will=None)
    life.exchange.tick(life.now_s)
    assert not life.exchange.take_wills()
    life.write()
    life.die()
    life.exchange.tick(life.now_s + PATIENCE_S - 1)
    assert not life.exchange.take_wills()
    life.exchange.tick(life.now_s + PATIENCE_S + 1)
    assert life.exchange.take_wills() == [will]


def test_a_retained_message_of_the_gateways_own_does_not_come_back():
    """It says anew at its start what every actuator should do; what it said in another life may be wrong."""
    life = Life(random.Random(1))
    turn = Turn()
    turn.senders.append((0, None))
    turn.add("heater/set", b"ON", qos=1, retain=True, properties={})
    life.write(life.exchange.plan(turn, life.now_s))
    life.exchange.route(turn, life.now_s)
    assert life.ledger().retained["heater/set"] == KeptMessage(
        "heater/set", b"ON", 1, retain=True, properties={}, expires_ns=None
    )
    life.exchange.publish(Message("heater/set", b"OFF", 1, retain=True), life.now_s)
    life.write()
    assert life.ledger().retained == {}
    assert dump(life.exchange).retained == {}
