"""What the proofs share."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.crash.nursery import Nursery

MEMORY = Path("/dev/shm")


@pytest.fixture
def root():
    """A proof that needs root: mounting, power cuts, control groups. Skipped for others, but not where all must run."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("this proof needs root (it mounts file systems) and must run under CI")
        pytest.skip("this proof needs root: it mounts file systems")


@pytest.fixture
def rng(seed):
    """A random source whose seed is printed with every failure."""
    return random.Random(seed)


@pytest.fixture
def home(tmp_path):
    """In memory, where there is some: a kill does not ask for the medium, and a sync then costs nothing."""
    place = Path(tempfile.mkdtemp(prefix="crash-", dir=MEMORY if MEMORY.is_dir() else tmp_path))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def nursery():
    """Processes that fork the lives that are killed."""
    made = Nursery()
    yield made
    made.close()
