"""M21: the power goes at every call of conversations at QoS 1 and 2, and in the middle of any."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.crash.exchanges import Scene
from tests.crash.figures import FULL, keep, share
from tests.crash.houses import House, Point, Struck, lasts_s, record, some, strike, total
from tests.crash.mounts import MIB, Cut, Ext4, ext4, own_mounts
from tests.crash.processes import Lane
from tests.crash.scenes import SCENES
from tests.crash.test_power_cut import SETTINGS

AT_EVERY_POINT = ("ordered, journal not flushed", "writeback, journal flushed")
CUTS_PER_DISK = 25
"""On one file system, so that freed blocks come back with what an older life has left in them."""


@pytest.fixture(scope="module")
def lane():
    """Gateways that start in milliseconds, and see what is mounted here."""
    if os.geteuid() == 0:
        own_mounts()
    made = Lane("living")
    yield made
    made.close()


class Mains:
    """The power of one file system: goes when the gateway is killed, or at a moment of its own, and the gateway too."""

    def __init__(self, disk: Ext4, how: Cut) -> None:
        self._disk, self._how = disk, how
        self._timer: threading.Timer | None = None
        self._is_off = False

    def cut_in(self, delay_s: float, house: House) -> None:
        """Let it go while everything runs."""
        pid = house.pid

        def cut() -> None:
            self._is_off = True
            self._disk.cut(self._how)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        self._timer = threading.Timer(delay_s, cut)
        self._timer.start()

    def cut_and_return(self, _house: House) -> None:
        """The gateway is dead: the power goes, unless it has, and comes back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if not self._is_off:
            self._disk.cut(self._how)
        self._disk.unmount()
        self._disk.mount()


def one_cut(lane: Lane, home: Path, disk: Ext4, how: Cut, case: tuple[Scene, int, Point | float]) -> Struck:
    """One conversation that a power cut interrupts: at a call, or after some seconds."""
    scene, version, moment = case
    mains = Mains(disk, how)
    place = disk.place / f"data-{random.getrandbits(32):08x}"
    is_point = isinstance(moment, Point)
    found = strike(
        lane,
        home,
        scene,
        version,
        moment if is_point else None,
        data=place,
        meanwhile=mains.cut_and_return,
        downfall=lambda house: None if is_point else mains.cut_in(moment, house),
    )
    shutil.rmtree(place)
    return found


def all_cuts(lane: Lane, home: Path, setting: str, cases: list[tuple[Scene, int, Point | float]]) -> list[Struck]:
    """Case after case, on a fresh disk now and then."""
    options, how = SETTINGS[setting]
    found: list[Struck] = []
    for first in range(0, len(cases), CUTS_PER_DISK):
        with ext4(home, options=options, size_bytes=128 * MIB) as disk:
            some = cases[first : first + CUTS_PER_DISK]
            found += [one_cut(lane, home / f"case-{first + n}", disk, how, case) for n, case in enumerate(some)]
    return found


@pytest.mark.timeout(7_200 if FULL else 180)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_power_cut_before_any_call_undoes_nothing_that_a_client_was_told(lane, home, root, rng, seed, scene: Scene):
    """Laws L1, L2, L3 for sessions: what was confirmed was on the medium, and not only in the kernel's memory."""
    found: list[Struck] = []
    points_of_all = 0
    for version in scene.versions:
        points = record(lane, home / "record", scene, version)
        points_of_all += len(points)
        for setting in AT_EVERY_POINT if FULL else rng.sample(AT_EVERY_POINT, 1):
            chosen = points if FULL else some(points, rng, 2)
            found += all_cuts(lane, home, setting, [(scene, version, point) for point in chosen])
    missed = sum(not case.kind for case in found)
    keep(
        "M21",
        f"power cut before every call, ext4 {' and '.join(AT_EVERY_POINT)}: {scene.name}",
        f"{len(found):,} cuts at {points_of_all:,} points, {missed} of which came only at the end",
        total(found),
        seed=seed,
    )


@pytest.mark.timeout(7_200 if FULL else 180)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_power_cut_in_the_middle_of_any_call_does_not_either(lane, home, root, rng, seed, setting):
    """The same while both threads work: in the middle of a sync, and between two that belong together."""
    took_s: dict[tuple[str, int], float] = {}
    cases: list[tuple[Scene, int, Point | float]] = []
    for _ in range(share(6, 400)):
        scene = rng.choice([each for each in SCENES if each.name != "a last will"])
        version = rng.choice(scene.versions)
        if (scene.name, version) not in took_s:
            took_s[scene.name, version] = lasts_s(lane, home / "undisturbed", scene, version)
        cases.append((scene, version, rng.uniform(0.0, took_s[scene.name, version])))
    found = all_cuts(lane, home, setting, cases)
    assert sum(bool(case.kind) for case in found) >= len(found) // 4, "hardly any cut came in the middle"
    steps = Counter(case.step for case in found if case.kind)
    keep(
        "M21",
        f"power cut at a random moment, ext4 {setting}",
        f"{steps.total():,} cuts in the middle, in {len(steps)} steps, and {len(found) - steps.total():,} at the end",
        total(found),
        seed=seed,
    )
