"""Plays a step of a script to a broker and notes what every client gets.

Nothing waits for time: a broker has done with a step when pings of another client, one after the other, have come
back. After the first, the step's packet may still lie in its socket beside the ping; what it causes (a message to
somebody, a will) may take a turn of the broker's loop more, hence `ROUNDS`. A new connection is waited for by what it
is answered, since to be accepted takes turns of its own.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import TYPE_CHECKING

from tests.mqtt.conftest import connect, packet, publish, text
from tests.mqtt.differential.said import take_apart
from tests.mqtt.differential.scripts import Step
from tests.mqtt.differential.witness import CLOSED, PUBLISH, PUBREC, PUBREL, Known, Reply, Stream, protocol_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mqtt.differential.scripts import Script

PATIENCE_S = 20.0
ROUNDS = 3
RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE = 0x21, 0x27
ALL = ("#", "$SYS/#", "$x/#")

Seen = dict[str, list[Reply]]
"""What each client got."""


class Party:
    """One connection of a script."""

    def __init__(self, port: int, step: Step, known: Known) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = Stream(protocol_level(step.data) == 5, known)
        self.acks, self.releases = step.acks, step.releases
        self.unanswered: list[tuple[int, bytes, bytes]] = []
        """What it would have answered, had it answered: first byte, what it is about, the whole."""
        self.is_open = True
        self.sent = 0
        hello = take_apart(step.data, v5=False)
        self.client_id = hello.client_id
        self.most_bytes = hello.value(MAXIMUM_PACKET_SIZE) or 1 << 30
        self.window = hello.value(RECEIVE_MAXIMUM) or 65_535
        self.in_flight: set[int] = set()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # that it is closed is seen when reading
            self.socket.sendall(data)

    def await_answer(self) -> None:
        """Until something has come, be it the end."""
        assert select.select([self.socket], [], [], PATIENCE_S)[0], "a new connection was not answered"

    def take(self) -> list[Reply]:
        """All that has come, answered where this party answers."""
        self.sent = 0
        if not self.is_open:
            return []
        self.socket.setblocking(False)
        try:
            while data := self.socket.recv(65_536):
                self.stream.data += data
            self.is_open = False
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        self.socket.settimeout(PATIENCE_S)
        replies: list[Reply] = []
        for kind, flags, body in self.stream.packets():
            reply, mid = self.stream.reply(kind, flags, body)
            replies.append(reply)
            if len(body) + 2 + (len(body) > 127) > self.most_bytes:
                replies.append(Reply("larger than the client takes"))
            if kind == PUBLISH and mid:
                self.in_flight.add(mid)
                if len(self.in_flight) > self.window:
                    replies.append(Reply("more than the client takes"))
            self.answer(kind, flags, mid)
        if not self.is_open:
            self.socket.close()
            replies.append(CLOSED)
        return replies

    def answer(self, kind: int, flags: int, mid: int) -> None:
        first = {PUBREC: 0x62, PUBREL: 0x70}.get(kind, 0)
        if kind == PUBLISH:
            first = (0, 0x40, 0x50)[flags >> 1 & 3]
        if not first:
            return
        answer = bytes([first, 2]) + mid.to_bytes(2, "big")
        if self.releases if kind == PUBREC else self.acks:
            self.acknowledge(answer)
            self.sent += 1
        elif kind != PUBREC:
            self.unanswered.append((first, self.stream.known.get(mid, b""), answer))

    def acknowledge(self, answer: bytes) -> None:
        if answer[0] in {0x40, 0x70}:
            self.in_flight.discard(int.from_bytes(answer[2:], "big"))
        self.send(answer)

    def drain(self) -> None:
        """Until the broker has closed it."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65_536):
                pass
        self.close()

    def close(self) -> None:
        self.is_open = False
        self.socket.close()


class Player:
    """A broker with the client whose pings are its clock."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.parties: dict[str, Party] = {}
        self.known: dict[str, Known] = {}
        self.begun: set[bytes] = set()
        """Client ids that may have a session."""
        self.clock = self.connected("clock")
        self.next(self.clock)

    def connected(self, client_id: str) -> Party:
        """Begun anew, in 5.0; ends when it is disconnected."""
        hello = connect(client_id, v5=True)
        party = Party(self.port, Step("", hello), Known())
        party.send(hello)
        return party

    def next(self, party: Party) -> list[Reply]:
        """What comes next, at least one packet."""
        while True:
            data = party.socket.recv(65_536)
            assert data, "closed"
            party.stream.data += data
            if packets := party.stream.packets():
                return [party.stream.reply(*one)[0] for one in packets]

    def act(self, step: Step) -> bool:
        """Do what the step says. Whether there was anything to do."""
        party = self.parties.get(step.client)
        if step.opens:
            if party is not None:
                self.begun |= {party.client_id, party.stream.assigned or b""}
                if earlier := self.parties.get(f"{step.client} before"):
                    earlier.close()
                self.parties[f"{step.client} before"] = party
            known = self.known.setdefault(step.client, Known())
            party = self.parties[step.client] = Party(self.port, step, known)
        if party is None or not party.is_open:
            return False
        if step.drops:
            party.close()
        elif step.late is not None:
            if not party.unanswered:
                return False
            party.unanswered.sort()
            party.acknowledge(party.unanswered.pop(step.late % len(party.unanswered))[2])
        else:
            party.send(step.data)
        if step.opens:
            party.await_answer()
        return True

    def collect(self, found: Seen) -> int:
        """Add to what has come. How many packets were sent in answer to it."""
        for name, party in self.parties.items():
            if replies := party.take():
                found.setdefault(name, []).extend(replies)
        return max((party.sent for party in self.parties.values()), default=0)

    def end(self, script: Script) -> None:
        """Close everything, end the script's sessions."""
        names = {name.encode() for name in script.client_ids} | self.begun
        for party in self.parties.values():
            names |= {party.client_id, party.stream.assigned or b""}
            party.close()
        self.parties.clear()
        self.known.clear()
        self.begun.clear()
        for one in [self.connected(name.decode(errors="replace")) for name in sorted(names - {b""})]:
            one.await_answer()  # it may be refused: then such a session has never begun
            one.send(b"\xe0\0")
            one.drain()

    def close(self) -> None:
        for party in (*self.parties.values(), self.clock):
            party.close()

    def sweep(self) -> list[Reply]:
        """What is retained; it is not, after that."""
        self.clock.send(packet(0x82, b"\0\1\0" + b"".join(text(one) + b"\0" for one in ALL)))
        self.clock.send(packet(0xA2, b"\0\1\0" + b"".join(map(text, ALL))) + b"\xc0\0")
        came: list[Reply] = []
        while not came or came[-1].kind != "PINGRESP":
            came += self.next(self.clock)
        kept = [reply for reply in came if reply.is_message]
        for reply in kept:
            self.clock.send(publish(reply.detail[0], b"", v5=True, retain=True))
        return kept


def barrier(players: Sequence[Player], rounds: int = ROUNDS) -> None:
    """Until all of them have done with what they were sent before."""
    for _ in range(rounds):
        for player in players:
            player.clock.send(b"\xc0\0")
        for player in players:
            came = player.next(player.clock)
            assert came == [Reply("PINGRESP")], came


def play(players: Sequence[Player], step: Step) -> list[Seen] | None:
    """What a step brought to whom, at each broker. None if it could not be done."""
    done = [player.act(step) for player in players]
    if not any(done):
        return None
    found: list[Seen] = [{} for _ in players]
    answers = 0
    while True:
        barrier(players, ROUNDS + answers)
        answers = max(player.collect(seen) for player, seen in zip(players, found, strict=True))
        if not answers:
            return found
