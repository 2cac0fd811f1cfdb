"""The planted bugs: each would lose, repeat or invent data, and each has been somebody's bug."""

from __future__ import annotations

from typing import NamedTuple

ROOM = "tests/ringlog/test_room.py"
RING = "tests/ringlog/test_ring_and_reader.py"
ERROR = "tests/ringlog/test_after_an_error.py"
FRAME = "tests/ringlog/test_frame.py"
SLOTS = "tests/ringlog/test_slots.py"
ORDERING = "tests/crash/test_weak_ordering.py"
STALE = "tests/crash/test_stale_tails.py"
ROT = "tests/crash/test_bit_rot.py"
TRUNCATION = "tests/crash/test_truncation.py"
OVER_THE_LOG = "tests/forward/test_runner_over_the_real_log.py"
RUNNER = "tests/forward/test_runner.py"
KILLS = "tests/crash/test_exchanges_and_kills.py"
POWER = "tests/crash/test_exchanges_and_power_cuts.py"


class Mutant(NamedTuple):
    """One planted bug: `old`, which stands once in `file`, becomes `new`, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "a removed fsync",
        "gateway/ringlog/segment.py",
        '''        """Return when all of it is on the medium."""
        self._file.sync()
''',
        '''        """Return when all of it is on the medium."""
''',
        (ORDERING, RING),
    ),
    Mutant(
        "a removed directory fsync",
        "gateway/ringlog/segment.py",
        """            self._file.sync()
            storage.sync_dir(directory)
""",
        """            self._file.sync()
""",
        (ORDERING,),
    ),
    Mutant(
        "acknowledged before the sync",
        "gateway/ringlog/committer.py",
        """        job = _Job(writes, self._tasks, self._done, passed_over, sync)
""",
        """        for done in self._done:
            self._loop.call_soon(done)
        job = _Job(writes, self._tasks, [], passed_over, sync)
""",
        (RING, ROOM),
    ),
    Mutant(
        "acknowledged while there is no room",
        "gateway/ringlog/committer.py",
        """        done = [] if self._held else job.done
        if self._held:
            self._done[:0] = job.done
""",
        """        done = job.done
""",
        (ROOM,),
    ),
    Mutant(
        "unlinked before the cursor is on disk",
        "gateway/ringlog/chain.py",
        """        self._room.before_unlink()
        end, slowest""",
        """        end, slowest""",
        (ROOM,),
    ),
    Mutant(
        "a checksum that starts from zero",
        "gateway/ringlog/frame.py",
        "CRC_SEED = 0x45474C46",
        "CRC_SEED = 0",
        (FRAME, SLOTS),
    ),
    Mutant(
        "a checksum that leaves the header out",
        "gateway/ringlog/frame.py",
        "    return header if crc == header.crc else",
        "    return header if True else",
        (ROT, FRAME),
    ),
    Mutant(
        "a retried fsync",
        "gateway/ringlog/segment.py",
        '''        """Return when all of it is on the medium."""
        self._file.sync()
''',
        '''        """Return when all of it is on the medium."""
        with contextlib.suppress(OSError):
            self._file.sync()
''',
        (ERROR, RING),
    ),
    Mutant(
        "appending after a short write",
        "gateway/ringlog/chain.py",
        """        writer, self._writer = self._writer, None
        active = self.layout.active
        if writer is None or active is None:
            return
        self.abandoned_segments += 1
""",
        """        writer, active = self._writer, self.layout.active
        if writer is None or active is None:
            return
        self.abandoned_segments += 1
        return
""",
        (ERROR,),
    ),
    Mutant(
        "recovered data is served before it is synced",
        "gateway/ringlog/recovery.py",
        """                file.truncate(offset)
            file.sync()
""",
        """                file.truncate(offset)
""",
        (ORDERING,),
    ),
    Mutant(
        "a rename without a sync",
        "gateway/ringlog/snapshot.py",
        "        file.sync()\n",
        "",
        (ORDERING,),
    ),
    Mutant(
        "a cursor that overwrites its only good slot",
        "gateway/ringlog/slots.py",
        "(generation % 2) * SLOT_BYTES",
        "0",
        (ORDERING, SLOTS),
    ),
    Mutant(
        "an epoch that is used twice",
        "gateway/ringlog/ring.py",
        """        self._meta.store(self._identity)
        self._meta.close()
""",
        "",
        (ERROR,),
    ),
    Mutant(
        "a sink that reads what is not on disk yet",
        "gateway/ringlog/reader.py",
        """        ring, position = self._ring, self.position
        limit = (ring.durable if self._durable_only else ring.appended).seq
""",
        """        ring, position = self._ring, self.position
        limit = ring.appended.seq
""",
        (RING,),
    ),
    Mutant(
        "leftover frames of an older life are read",
        "gateway/ringlog/frame.py",
        """    if header.log_id != log_id:
        return Torn("belongs to another log")
""",
        "",
        (STALE, FRAME),
    ),
    Mutant(
        "damage that nobody is told of",
        "gateway/ringlog/reader.py",
        """    if header.seq > position.seq:
        yield Gap(""",
        """    if header.seq < position.seq:
        yield Gap(""",
        (ROT, RING),
    ),
    Mutant(
        "a torn tail that is not cut off",
        "gateway/ringlog/recovery.py",
        """            if not unreadable_bytes and file.size_bytes() > offset:
                file.truncate(offset)
""",
        "",
        (ERROR,),
    ),
    Mutant(
        "a cursor that moves before the dead letter is on disk",
        "gateway/forward/runner.py",
        """            if settled.refused:
                await self._bury(parcel, settled.refused, tries, tried_wall_ns)
            self._account(parcel, settled)
""",
        """            self._account(parcel, settled)
            if settled.refused:
                await self._commit()
                await self._bury(parcel, settled.refused, tries, tried_wall_ns)
""",
        (RUNNER, OVER_THE_LOG),
    ),
    Mutant(
        "what is rewritten after an error comes in the wrong order",
        "gateway/ringlog/chain.py",
        "        self._backlog.extendleft(reversed(self._unsynced))\n",
        "        self._backlog.extend(self._unsynced)\n",
        (ERROR,),
    ),
    Mutant(
        "a PUBREC before the sync",
        "gateway/mqtt/gathering.py",
        """        self.turn = Turn()
        self._unsettled.append(turn)
""",
        """        self.turn = Turn()
        for sender, mids in turn.pubrecs.items():
            sender.acknowledge([], mids)
        turn.pubrecs = {}
        self._unsettled.append(turn)
""",
        (KILLS,),
    ),
    Mutant(
        "packet ids of QoS 2 messages that are forgotten",
        "gateway/mqtt/gathering.py",
        "    return [Taken(client_id, tuple(mids)) for client_id, mids in by_client.items()]\n",
        "    return []\n",
        (KILLS,),
    ),
    Mutant(
        "a packet id that is not known to be released",
        "gateway/mqtt/conversation.py",
        "                    self._exchange.notes.note(Released(session.client_id, packet.mid))\n",
        "                    pass\n",
        (KILLS,),
    ),
    Mutant(
        "entries that hold whether their events came to disk or not",
        "gateway/mqtt/gathering.py",
        "        return entries if self._keeper is None or not entries else [Bound(*self._keeper.place()), *entries]\n",
        "        return entries\n",
        (KILLS,),
    ),
    Mutant(
        "a bound that only the first start after it knows",
        "gateway/ringlog/recovery.py",
        "        return min(later, default=self.end.seq)\n",
        "        return min(later, default=self.end.seq) if epoch == self.epoch else 1 << 60\n",
        (KILLS, "tests/known_errors/test_bound_that_only_one_start_knew.py"),
    ),
    Mutant(
        "a CONNACK before its session is on disk",
        "gateway/mqtt/admission.py",
        "        if not is_present and (session.is_kept or is_replaced):\n",
        "        if False:\n",
        (KILLS,),
    ),
    Mutant(
        "confirmations before what they confirm is on disk",
        "gateway/mqtt/gathering.py",
        "        if turn.answers and self._keeper is not None:\n",
        "        if False:\n",
        (KILLS,),
    ),
    Mutant(
        "a QoS 2 message before its packet id is on disk",
        "gateway/mqtt/session.py",
        """            self._notes.stage(outlet, packet)
        else:
            outlet.put(packet)

    def _put_pubrel""",
        """            outlet.put(packet)
        else:
            outlet.put(packet)

    def _put_pubrel""",
        (KILLS,),
    ),
    Mutant(
        "an unsubscription that is forgotten",
        "gateway/mqtt/exchange.py",
        "            self.notes.note(Unsubscribed(session.client_id, mqtt_filter))\n",
        "            pass\n",
        (KILLS,),
    ),
    Mutant(
        "events that come to disk before what is noted with them",
        "gateway/ringlog/committer.py",
        "        for log in self._logs:\n            if log not in passed_over:\n",
        "        for log in reversed(self._logs):\n            if log not in passed_over:\n",
        (KILLS,),
    ),
    Mutant(
        "a clients' log that is not synced",
        "gateway/ringlog/chain.py",
        "            if writer.synced_bytes < writer.used_bytes:\n",
        "            if writer.synced_bytes < writer.used_bytes and self._directory.name != 'clients':\n",
        (POWER,),
    ),
)
