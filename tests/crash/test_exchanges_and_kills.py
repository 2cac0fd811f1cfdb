"""M20: the whole gateway, killed before every call of conversations at QoS 1 and 2, and what its clients then find."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.crash.exchanges import Scene
from tests.crash.figures import FULL, keep, share
from tests.crash.houses import House, Struck, kill_the_start, record, some, strike, total
from tests.crash.processes import Lane
from tests.crash.scenes import SCENES


@pytest.fixture(scope="module")
def lane():
    """Gateways that start in milliseconds."""
    made = Lane("living")
    yield made
    made.close()


@pytest.mark.timeout(3_600 if FULL else 180)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_kill_before_any_call_undoes_nothing_that_a_client_was_told(lane, home, rng, seed, scene: Scene):
    """Laws L1, L2, L3, L4 for sessions: whatever was confirmed stands, and at QoS 2 everything comes once."""
    found: list[Struck] = []
    points_of_all = 0
    for version in scene.versions:
        points = record(lane, home / "record", scene, version)
        points_of_all += len(points)
        chosen = points if FULL else some(points, rng, 5)
        found += [strike(lane, home / f"{version}-{n}", scene, version, point) for n, point in enumerate(chosen)]
    kinds = Counter(case.kind for case in found)
    print("killed before:", dict(kinds.most_common()))
    missed = kinds.pop("", 0)
    assert missed <= max(2, len(found) // 10), "what is struck is hardly what was aimed at"
    keep(
        "M20",
        f"SIGKILL before every call that changes the data directory or serves a socket: {scene.name}",
        f"{len(found):,} kill points of {points_of_all:,}, {missed} of which came only at the end; {len(kinds)} kinds",
        total(found),
        seed=seed,
    )


@pytest.mark.timeout(3_600 if FULL else 180)
def test_a_start_that_is_killed_too_finds_out_the_same_the_next_time(lane, home, rng, seed):
    """Laws L2, L3: what a start was about to conclude from an unfinished write, the next concludes as well."""
    recorded = {
        (scene.name, version): record(lane, home / "record", scene, version)
        for scene in SCENES
        for version in scene.versions
    }
    found: list[Struck] = []
    kinds: Counter[str] = Counter()
    for number in range(share(16, 300)):
        scene = rng.choice(SCENES)
        version = rng.choice(scene.versions)
        points = recorded[scene.name, version]
        # Half of them between the syncs of the two logs, where there is most to conclude.
        between = [point for point in points if point.kind == "pwrite64 /events/.seg"] if number % 2 else []
        point = rng.choice(between or points)

        def again(house: House) -> None:
            kinds[kill_the_start(house, rng)] += 1

        found.append(strike(lane, home / f"twice-{number}", scene, version, point, meanwhile=again))
    print("killed before:", dict(kinds.most_common()))
    keep(
        "M20",
        "a second SIGKILL, before a call of the recovery that follows",
        f"{len(found):,} pairs of kill points, at {len(kinds)} kinds of call of the recovery",
        total(found),
        seed=seed,
    )
