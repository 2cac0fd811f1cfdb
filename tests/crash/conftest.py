"""What the proofs share."""

from __future__ import annotations

import os
import random

import pytest


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
