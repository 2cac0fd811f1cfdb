"""The real gateway as an object: real sockets, a clock that is moved by hand, and an end like `kill -9`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gateway.act.records import decode_records
from gateway.app.gateway import Gateway
from gateway.config.settings import HttpSettings, ListenSettings, LogSettings, Settings, TopicSettings
from gateway.model import Batch, Decision, Kind, Outcome
from gateway.ringlog import inspect
from gateway.rules.reading.language import load_rules
from tests.app.peer import Peer
from tests.scenarios.site import until


class Lives:
    """One data directory, and the gateways that live on it one after the other."""

    def __init__(self, home: Path, clock, rules: str = "") -> None:
        self.home = home
        self.clock = clock
        self._rules = home / "rules.yaml"
        self._rules.write_text(rules or "rules: []\n")
        self.gateway: Gateway | None = None
        self._peers: list[Peer] = []

    async def begin(self, storage=None, **settings) -> Gateway:
        """A new life: recovered, and its port open."""
        self.gateway = self.build(storage, **settings)
        await self.gateway.start()
        return self.gateway

    def build(self, storage=None, **settings) -> Gateway:
        """A gateway that has not started yet."""
        return Gateway(self.settings(**settings), self.rules(), self.clock, storage)

    def rules(self):
        """What it decides by."""
        return load_rules([self._rules])

    def settings(self, **changes) -> Settings:
        """What it is configured to."""
        fields = {
            "gateway_id": "gw",
            "data_dir": self.home / "data",
            "listen": ListenSettings(port=0),
            "topics": (
                TopicSettings(topic="devices/{device}/{type}"),
                TopicSettings(topic="devices/{device}/heater/state"),
                TopicSettings(topic="alerts/{device}"),
            ),
            "log": LogSettings(compress=False, segment_size_bytes=1 << 20, max_size_bytes=8 << 20),
            "http": HttpSettings(port=0),
        }
        return Settings(**(fields | changes))

    async def peer(self, *topics: str) -> Peer:
        """A client of the present gateway."""
        assert self.gateway is not None
        found = await asyncio.to_thread(Peer, self.gateway.listener.port, *topics)
        self._peers.append(found)
        return found

    async def say(self, peer: Peer, topic: str, **fields) -> None:
        """Publish, and return when it is acknowledged: on disk."""
        mid = peer.publish(topic, fields)
        await until(lambda: mid in peer.acknowledged, f"{topic} is acknowledged", 20)

    async def drop(self) -> None:
        """The end of a life without farewell: nothing is saved, flushed or said that was not already under way."""
        gateway, self.gateway = self.gateway, None
        if gateway is None:
            return
        tasks = [*gateway._stage_tasks, *gateway._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        gateway.store.committer.abandon()  # nothing of what the servers' end brings about is written
        await asyncio.to_thread(gateway.store.committer._thread.join)
        for server in (gateway.listener, gateway.broker, gateway.web):
            if server is not None:
                await server.stop()
        gateway.store.cursors.close()
        os.close(gateway.store._lock)

    async def close(self) -> None:
        """Whatever still stands."""
        for peer in self._peers:
            await asyncio.to_thread(peer.close)
        await self.drop()

    def records(self) -> list[Decision | Outcome]:
        """Every decision and outcome on disk, oldest first."""
        return [
            record
            for batch in inspect.scan_log(self.home / "data", "events")
            if isinstance(batch, Batch) and batch.kind is Kind.DECISIONS
            for _, record in decode_records(batch)
        ]

    def decisions(self, rule: str) -> list[Decision]:
        """What a rule has decided, oldest first."""
        return [record for record in self.records() if isinstance(record, Decision) and record.rule == rule]

    def ends_of(self, decision: Decision) -> list[str]:
        """What became of a decision; more than one end is one too many."""
        return [
            record.state
            for record in self.records()
            if isinstance(record, Outcome) and record.decision_id == decision.id
        ]
