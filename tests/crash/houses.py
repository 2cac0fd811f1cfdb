"""A whole gateway under strace: `gateway run` on a real configuration and data directory, killed at a chosen call.

What strikes is SIGKILL, before a system call that changes the data directory or moves bytes to or from a client. It is
found by its name and number in the thread that makes it, from a recording of the same conversation; strace follows that
thread alone, so that each can be struck. Two conversations never go quite alike, since a sync that is a little later
carries a little more: so what was struck is read from the trace of the very life, and a call that never came, because
this life needed fewer of its kind, counts as a kill at the end.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.model import Batch, Kind
from gateway.ringlog import inspect
from tests.crash.exchanges import Cast, Scene, converse, finish
from tests.crash.processes import PATIENCE_S, Lane
from tests.crash.promises import Tally, verdict
from tests.crash.strace import Aim, Call, Tracer, aims
from tests.scenarios.site import free_port

WIRE = ("read", "readv", "recvfrom", "recvmsg", "sendto", "sendmsg", "accept", "accept4", "shutdown")
"""Calls on sockets, besides `write` and `writev`. None that connects: a gateway of these proofs does not."""
_CONFIGURATION = """
gateway: {{id: cuts, data_dir: {data}}}
mqtt: {{listen: "mqtt://127.0.0.1:{port}"}}
ingest: {{topics: [{{topic: "stored/{{device}}/{{type}}", format: text}}]}}
log: {{compress: false, segment_size: 1MiB, max_size: 8MiB}}
http: off
rules: []
"""


class House:
    """One data directory, and the gateways that live on it one after the other."""

    def __init__(self, lane: Lane, home: Path, data: Path | None = None) -> None:
        """Args: home: for all but the data, which lies in `data` if that is given."""
        self.home, self.data = home, data or home / "data"
        self.port = free_port()
        home.mkdir(parents=True, exist_ok=True)
        self._lane = lane
        self._config = home / "gateway.yaml"
        self._config.write_text(_CONFIGURATION.format(data=self.data, port=self.port))
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ready.bind(str(home / "ready"))
        self._tracer: Tracer | None = None

    @property
    def pid(self) -> int:
        """Of the present life."""
        return self._lane.pid

    @property
    def output(self) -> Path:
        return self.home / "output"

    def start(self, *options: str) -> None:
        """A new life, up to the point at which it says that it is ready."""
        self._lane.start("living", self._config, self.home / "ready", *options, output=self.output)
        if "--gate" not in options:
            self.until_ready()

    def until_ready(self) -> None:
        """Wait for its word; what its predecessor has said of its end is passed over."""
        said = b""
        while said != b"READY=1":
            ready, _, _ = select.select([self._ready], [], [], PATIENCE_S)
            assert ready, f"never ready: {self.output.read_text()[-3_000:]}"
            said = self._ready.recv(100)

    def gets_ready(self) -> bool:
        """Whether it says so before it is dead."""
        for _ in range(round(PATIENCE_S / 0.01)):
            ready, _, _ = select.select([self._ready], [], [], 0.01)
            if ready:
                return self._ready.recv(100) == b"READY=1"
            with contextlib.suppress(TimeoutError):
                self._lane.wait(0.0)
                return False
        raise AssertionError(f"neither ready nor dead: {self.output.read_text()[-3_000:]}")

    def trace(self, point: Point | None = None) -> None:
        """From here on calls are written down: all; or those of one thread, of which one is to be its last."""
        pid, output = self._lane.pid, self.home / "trace"
        if point is None:
            self._tracer = Tracer(pid, output, also=WIRE)
            return
        inject = f"{point.name}:signal=SIGKILL:when={point.nth}"
        tid = pid if point.is_main else writer_of(pid)
        self._tracer = Tracer(tid, output, inject=[inject], also=WIRE, alone=True)

    def trace_start(self, aim: Aim | None = None) -> None:
        """The same for one that stands at its gate, whose writing thread is not there yet."""
        inject = [] if aim is None else [f"{aim.name}:signal=SIGKILL:when={aim.nth}"]
        self._tracer = Tracer(self._lane.pid, self.home / "trace", inject=inject)

    def let_go(self) -> None:
        """Let it pass its gate."""
        self._lane.go_on()

    def has_died(self) -> int:
        """How it ended; it is certain to end by itself."""
        return self._lane.wait()

    def kill(self) -> None:
        """SIGKILL, unless it is dead already."""
        if self._lane.pid:
            self._lane.kill()

    def calls(self) -> list[Call]:
        """What the life that was traced has done."""
        tracer, self._tracer = self._tracer, None
        assert tracer is not None, "it was traced"
        return tracer.calls()

    def stop(self) -> None:
        """An orderly end."""
        os.kill(self._lane.pid, signal.SIGTERM)
        code = self._lane.wait()
        assert code == 0, f"exit code {code}: {self.output.read_text()[-3_000:]}"

    def events(self) -> list[tuple[str, bytes]]:
        """Topic and payload of every event in the log, in order. It must be sound."""
        found: list[tuple[str, bytes]] = []
        for item in inspect.scan_log(self.data):
            assert isinstance(item, Batch), f"damaged: {item}"
            if item.kind is Kind.EVENTS:
                found += zip(item.topics, map(bytes, item.payloads), strict=True)
        return found

    def close(self) -> None:
        """End what still runs."""
        self.kill()
        if self._tracer is not None:
            self._tracer.calls()
        self._ready.close()


class Point(NamedTuple):
    """A call of a conversation before which the gateway can be killed."""

    is_main: bool
    """It is made by the main thread, not by the one that writes."""
    name: str
    nth: int
    """Among the calls of this name by that thread, since the conversation began."""
    kind: str
    """What it does to which kind of file, or to a client."""


@contextlib.contextmanager
def a_house(lane: Lane, home: Path, data: Path | None = None):
    """For as long as a case lasts. It is cleared away if all was well."""
    house = House(lane, home, data)
    try:
        yield house
    finally:
        house.close()
    shutil.rmtree(home)


def writer_of(pid: int) -> int:
    """The thread that writes is the first that a gateway starts; Linux numbers them in their order."""
    return min(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) > pid)


def matters(call: Call) -> bool:
    """Whether it moves bytes from or to a client, or lets one in or go."""
    on_socket = bool(call.paths) and call.paths[0].startswith(("socket:", "TCP:"))
    return on_socket and (call.name in WIRE or call.name in {"write", "writev", "close"})


def kind_of(call: Call) -> str:
    """The paths of a call, less what differs from one case and one segment to the next."""
    path = call.paths[0] if call.paths else ""
    where = "client" if path.startswith(("socket:", "TCP:")) else re.sub(r"^.*/data\b|\d+", "", path)
    return f"{call.name} {where}"


def record(lane: Lane, home: Path, scene: Scene, version: int) -> list[Point]:
    """Have a conversation that nothing disturbs, judge it, and name its points."""
    cast = Cast(version)
    with a_house(lane, home) as house:
        house.start()
        house.trace()
        cast.port = house.port
        converse(cast, scene.steps(cast), _nobody_dies)
        main = house.pid
        house.kill()
        calls = house.calls()
        cast.lose_all()
        house.start()
        conclude(house, cast)
        return list(points_of(calls, main, house.data))


def lasts_s(lane: Lane, home: Path, scene: Scene, version: int) -> float:
    """How long a conversation takes that nothing disturbs and nobody traces."""
    cast = Cast(version)
    with a_house(lane, home) as house:
        house.start()
        cast.port = house.port
        began_s = time.monotonic()
        converse(cast, scene.steps(cast), _nobody_dies)
        took_s = time.monotonic() - began_s
        cast.lose_all()
        return took_s


def points_of(calls: Sequence[Call], main: int, data: Path) -> Iterator[Point]:
    """Every call that matters. Two threads make them: the loop's, and the one that writes."""
    counts: Counter[tuple[int, str]] = Counter()
    writers = {main}
    for call in calls:
        counts[call.tid, call.name] += 1
        if call.changes(data) or matters(call):
            writers.add(call.tid)
            assert len(writers) <= 2, f"a third thread makes calls that matter: {call}"
            yield Point(call.tid == main, call.name, counts[call.tid, call.name], kind_of(call))


def _nobody_dies() -> None:
    raise AssertionError("the gateway has closed a connection")


class Struck(NamedTuple):
    """What came of one case."""

    kind: str
    """Of the call before which it was killed; empty: that call never came."""
    step: int
    tally: Tally


def strike(
    lane: Lane,
    home: Path,
    scene: Scene,
    version: int,
    point: Point | None,
    *,
    data: Path | None = None,
    meanwhile: Callable[[House], None] = lambda _: None,
    downfall: Callable[[House], None] = lambda _: None,
) -> Struck:
    """Have a conversation that is cut off at a point; go on with it, finish it and judge it.

    Args:
        lane: who lives it.
        home: for what the case needs.
        scene: the conversation.
        version: of the protocol.
        point: where the kill is to come; None: where `downfall` brings it about.
        data: where the data directory is to be, if not in `home`.
        meanwhile: what befalls the data directory between the kill and the next start.
        downfall: called before the first step.
    """
    cast = Cast(version)
    struck: list[tuple[str, int]] = []
    with a_house(lane, home, data) as house:
        house.start()
        if point is not None:
            house.trace(point)
        cast.port = house.port

        def fall() -> None:
            assert not struck, "the gateway has closed a connection"
            house.has_died()
            struck.append((last_call(house.calls()) if point is not None else "at any moment", cast.journal.step))
            meanwhile(house)
            house.start()

        try:
            downfall(house)
            converse(cast, scene.steps(cast), fall)
            if not struck:  # the call that was aimed at has not come
                house.kill()
                if point is not None:
                    house.calls()
                struck.append(("", cast.journal.step))
                cast.lose_all()
                meanwhile(house)
                house.start()
            tally = conclude(house, cast)
        except AssertionError as error:
            error.add_note(f"{scene.name}, version {version}, {point}: what is left lies in {home}")
            error.add_note("\n".join(cast.journal.lines[-80:]))
            raise
        return Struck(*struck[0], tally)


def kill_the_start(house: House, rng: random.Random) -> str:
    """Begin the start after a kill, and kill that as well, before a call of its recovery. Which it was."""
    before = house.home / "before"
    shutil.copytree(house.data, before)
    house.start("--gate", "start")
    house.trace_start()
    house.let_go()
    house.until_ready()
    house.kill()
    calls = house.calls()
    chosen = rng.choice(aims(calls, house.data))
    shutil.rmtree(house.data)
    before.rename(house.data)
    house.start("--gate", "start")
    house.trace_start(chosen)
    house.let_go()
    if house.gets_ready():
        house.kill()
    house.calls()
    return kind_of(calls[chosen.index])


def conclude(house: House, cast: Cast) -> Tally:
    """Finish a conversation with a gateway that nobody kills, stop it, and judge what came of it all."""
    converse(cast, finish(cast), _nobody_dies)
    cast.lose_all()
    house.stop()
    wrong, tally = verdict(cast, house.events())
    assert not wrong, "\n".join(wrong)
    return tally


def last_call(calls: Sequence[Call]) -> str:
    """Before what the process was killed: strace shows the call without a result."""
    cut_off = [call for call in calls if call.value == "?"]
    return kind_of(cut_off[-1]) if cut_off else ""


def some(points: list[Point], rng: random.Random, count: int) -> list[Point]:
    """One point of each kind, as far as that goes."""
    drawn = rng.sample(points, len(points))
    firsts = {point.kind: point for point in reversed(drawn)}
    return rng.sample(list(firsts.values()), min(count, len(firsts)))


def total(found: list[Struck]) -> str:
    """What came of many cases, each of which has been judged."""
    whole = Tally(*(sum(each) for each in zip(*(case.tally for case in found), strict=True)))
    return (
        f"{whole.exchanges:,} handshakes finished, {whole.stored:,} events stored, {whole.delivered:,} messages "
        f"delivered: 0 lost, 0 phantom, 0 disordered, 0 twice at QoS 2; repeats at QoS 1 {whole.log_repeats:,} in the "
        f"log, {whole.delivery_repeats:,} at subscribers"
    )
