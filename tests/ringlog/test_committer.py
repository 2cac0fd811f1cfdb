"""Which batches share a job, when the disk is quick and when it is slow."""

import asyncio
import threading

import pytest

from gateway.ringlog.committer import Committer


class HeldLog:
    """Notes what each job brings, takes a stated time for it, and ends the first one when it is told to."""

    name = "held"

    def __init__(self, clock, took_s) -> None:
        self.clock, self.took_s = clock, took_s
        self.waiting, self.jobs = [], []
        self.is_entered, self.may_end = threading.Event(), threading.Event()

    def append(self, committer, what, done) -> None:
        self.waiting.append(what)
        committer.when_durable(done)

    def take(self):
        taken, self.waiting = self.waiting, []
        return taken

    def write(self, batches, *, sync):
        self.jobs.append(batches)
        self.is_entered.set()
        assert self.may_end.wait(20)
        self.clock.advance(self.took_s)

    def finished(self, batches) -> None:
        pass


@pytest.mark.parametrize(("took_s", "shared"), [(0.000_1, [["a"], ["b"], ["c"]]), (0.05, [["a"], ["b", "c"]])])
async def test_who_answers_an_acknowledgement_at_once_shares_the_next_sync_of_a_slow_disk(clock, took_s, shared):
    """A quick disk starts with what is there; on a card that waits a moment for those who were just served."""
    committer = Committer(clock, 0.0, lambda error: None)
    log = HeldLog(clock, took_s)
    committer.add(log)
    log.append(committer, "a", lambda: log.append(committer, "c", lambda: None))
    while not log.is_entered.is_set():
        await asyncio.sleep(0)
    log.append(committer, "b", lambda: None)
    await asyncio.sleep(0)
    log.may_end.set()
    while sum(map(len, log.jobs)) < 3:
        await asyncio.sleep(0)
    await committer.flush()
    await committer.close()
    assert [job for job in log.jobs if job] == shared


async def test_a_lone_sender_is_never_paused_for(clock):
    """Nobody waited behind its event: the next one goes to a slow disk at once."""
    committer = Committer(clock, 0.0, lambda error: None)
    log = HeldLog(clock, 0.05)
    log.may_end.set()
    committer.add(log)
    for number in range(3):
        log.append(committer, number, lambda: None)
        await committer.flush()
        assert committer._pause is None
    await committer.close()
    assert [job for job in log.jobs if job] == [[0], [1], [2]]
