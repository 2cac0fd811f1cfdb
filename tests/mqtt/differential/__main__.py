"""Plays every conversation of `named` and many random ones to the listener and to mosquitto: `make differential`.

Random conversations are numbered from a seed on, so that a seed and a number name one for ever.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.mqtt.differential import brokers
from tests.mqtt.differential.duel import Duel, UnexplainedError
from tests.mqtt.differential.named import scripts
from tests.mqtt.differential.scripts import Author


def main() -> int:
    parser = argparse.ArgumentParser(prog="make differential", description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000, help="random ones")
    asked = parser.parse_args()
    seed = int(os.environ.get("TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"TEST_SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, brokers.both(Path(folder)) as ports:
        duel = Duel(*ports)
        try:
            for script in scripts():
                duel.play(script)
            for number in range(asked.sequences):
                duel.play(Author(seed + number).script())
        except UnexplainedError as error:
            print(error)
            return 1
    print(duel.counts)
    for name in duel.counts.never_met():
        print(f"never met: {name}")
    return int(bool(duel.counts.never_met()))


if __name__ == "__main__":
    sys.exit(main())
