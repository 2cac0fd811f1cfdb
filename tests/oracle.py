"""What must be true after any fault, decided from the two ends alone: what senders were told, what came out.

lost        acknowledged to a sender, and neither seen, nor dead-lettered, nor announced as evicted: must be empty
phantom     seen and never sent, or seen with other bytes than were sent: must be empty
disordered  first occurrences of one stream that go back: must be empty
repeats     occurrences after the first: bounded, one window a fault
leaks       files that no living log owns, descriptors and threads above the baseline: must be empty

The oracle knows nothing of the gateway's code. A message is named `(stream, seq)`: a topic and the number that its
sender gave it. Journals of senders lie on a file system that the fault does not touch.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Name = tuple[str, int]


@dataclass(frozen=True)
class Judgement:
    """See the module. Messages are named `(stream, seq)`."""

    acknowledged: int
    lost: list[Name]
    phantom: list[Name]
    disordered: list[Name]
    repeats: int
    leaks: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong but repeats, of which the caller knows the bound."""
        return not (self.lost or self.phantom or self.disordered or self.leaks)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged: {len(self.lost)} lost {self.lost[:5]}, {len(self.phantom)} phantom "
            f"{self.phantom[:5]}, {len(self.disordered)} out of order {self.disordered[:5]}, {self.repeats} repeats"
            + (f", leaks {self.leaks[:5]}" if self.leaks else "")
        )


def digest(payload: bytes) -> str:
    """What a journal keeps of a payload."""
    return hashlib.sha256(payload).hexdigest()


def judge(
    sent: Collection[Name] | Mapping[Name, str],
    acknowledged: Collection[Name],
    arrivals: Iterable[Name] | Iterable[tuple[Name, str]],
    *,
    dead_lettered: Collection[Name] = (),
    evicted: Collection[Name] = (),
    leaks: Collection[str] = (),
) -> Judgement:
    """Hold what arrived, in its order, against what the senders know.

    Args:
        sent: every message that was ever offered; as a mapping, with the digest of its payload.
        acknowledged: those whose sender was told that they are safe.
        arrivals: what came out, in order; with digests if `sent` has them.
        dead_lettered: what the dead-letter log holds.
        evicted: what was announced as given up.
        leaks: what `leaks_in` found.
    """
    items = list(arrivals)
    foreign: list[Name] = []
    if isinstance(sent, Mapping):
        foreign = [name for name, found in items if sent.get(name) != found]
        names = [name for name, _ in items]
    else:
        names = items
    seen = Counter(names)
    highest: dict[str, int] = {}
    disordered = []
    for stream, seq in dict.fromkeys(names):
        if seq < highest.get(stream, -1):
            disordered.append((stream, seq))
        highest[stream] = max(seq, highest.get(stream, -1))
    return Judgement(
        acknowledged=len(acknowledged),
        lost=sorted(set(acknowledged) - seen.keys() - set(dead_lettered) - set(evicted)),
        phantom=sorted({*(seen.keys() - set(sent)), *foreign}),
        disordered=disordered,
        repeats=sum(seen.values()) - len(seen),
        leaks=sorted(leaks),
    )


class Journal:
    """A sender's own account, appended line by line, whole lines only. Survives the death of its writer.

    A line is `s STREAM SEQ DIGEST` before the message is offered and `a STREAM SEQ` once it was acknowledged. Written
    by `os.write` to a descriptor in append mode: what the kernel has taken outlives a kill of the process.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def sent(self, messages: Iterable[tuple[Name, bytes]]) -> None:
        """These are about to be offered."""
        lines = "".join(f"s {stream} {seq} {digest(payload)}\n" for (stream, seq), payload in messages)
        os.write(self._fd, lines.encode())

    def acknowledged(self, names: Iterable[Name]) -> None:
        """The sender was told that these are safe."""
        os.write(self._fd, "".join(f"a {stream} {seq}\n" for stream, seq in names).encode())

    def close(self) -> None:
        os.close(self._fd)


def read_journal(path: Path) -> tuple[dict[Name, str], set[Name]]:
    """`(sent with digests, acknowledged)` of a `Journal`. A last line that was cut off counts for nothing."""
    sent: dict[Name, str] = {}
    acknowledged: set[Name] = set()
    text = path.read_text() if path.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        kind, stream, seq, *rest = line.split(" ")
        if kind == "s":
            sent[stream, int(seq)] = rest[0]
        else:
            acknowledged.add((stream, int(seq)))
    return sent, acknowledged


def read_device_journal(path: Path) -> tuple[set[Name], set[Name]]:
    """`(sent, acknowledged)` from the journal of the simulated devices."""
    sent: set[Name] = set()
    acknowledged: set[Name] = set()
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] in {"sent", "resent"}:
            sent.add((entry["topic"], entry["seq"]))
        elif entry["event"] == "acked":
            acknowledged.add((entry["topic"], entry["seq"]))
    return sent, acknowledged


def count_acknowledged(path: Path) -> int:
    """How many PUBACKs the simulated devices have had so far."""
    return path.read_text().count('"event":"acked"') if path.exists() else 0


@dataclass(frozen=True)
class Baseline:
    """What a process holds before the test: to be back there after it."""

    descriptors: int
    threads: int

    @classmethod
    def here(cls) -> Baseline:
        return cls(sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count())


def leaks_in(data_dir: Path, baseline: Baseline | None = None) -> list[str]:
    """Temporary files in a data directory that nobody has open; descriptors and threads above the baseline."""
    found = [str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if path.name.endswith((".tmp", ".new"))]
    if baseline is not None:
        now = Baseline.here()
        if now.descriptors > baseline.descriptors:
            found.append(f"{now.descriptors - baseline.descriptors} descriptors")
        if now.threads > baseline.threads:
            found.append(f"{now.threads - baseline.threads} threads")
    return found


def identity_errors(account: Mapping[str, int]) -> list[str]:
    """Where an account of a sink breaks L7. Takes received, delivered, dead_lettered, evicted, pending."""
    parts = {name: account[name] for name in ("delivered", "dead_lettered", "evicted", "pending")}
    if account["received"] != sum(parts.values()):
        return [f"received {account['received']} is not the sum of {parts}"]
    return []
