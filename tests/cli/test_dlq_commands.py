"""`gateway dlq`: what could not be processed is listed, shown whole and put back, with a gateway running or without."""

import asyncio
import io
import json
import threading

import pytest

from gateway.config.settings import HttpSettings, LogSettings, Settings, TopicSettings
from gateway.ingest import Ingest
from gateway.model import REPLAYED, Batch
from gateway.observe import log
from gateway.ringlog import Store, inspect
from gateway.web.replay import Replayer
from gateway.web.server import WebServer


@pytest.fixture
def filled(filler, letter):
    filler.fill(
        letters=(
            letter("g/1/1/4"),
            letter("g/2/1/0", stage="ingest", code="json", payload=b"{\xff", detail="not JSON\nat all", attempts=1),
            letter("g/1/1/9", stage="history", payload=b'"\x1b[2J"'),
        )
    )
    return filler.data_dir


def test_list_shows_a_letter_a_line(gateway, filled):
    """When, which event, who refused it and why, and the beginning of what it was."""
    ran = gateway("dlq", "list", filled)
    assert (ran.code, len(ran.lines)) == (0, 3)
    assert 'g/1/1/4  cloud: http_400  devices/a/climate  {"t": 21.5}' in ran.lines[0]
    assert "g/2/1/0  ingest: json  devices/a/climate  0x7bff" in ran.lines[1]
    assert "\x1b" not in ran.out


def test_list_filters_by_stage_and_code(gateway, filled):
    """One sink's letters, or one reason's."""
    assert [line.split()[2] for line in gateway("dlq", "list", filled, "--stage", "history").lines] == ["g/1/1/9"]
    assert [line.split()[2] for line in gateway("dlq", "list", filled, "--code", "json").lines] == ["g/2/1/0"]
    ran = gateway("dlq", "list", filled, "--code", "nothing")
    assert (ran.code, ran.out, ran.err) == (0, "", "no dead letters\n")


def test_list_as_json_is_an_object_a_line(gateway, filled):
    """The payload exact in base64, and as text where it is text."""
    letters = [json.loads(line) for line in gateway("dlq", "list", "-d", filled, "--json").lines]
    assert [(one["id"], one["payload_text"], one["replayed"]) for one in letters][:2] == [
        ("g/1/1/4", '{"t": 21.5}', False),
        ("g/2/1/0", None, False),
    ]
    assert letters[1]["payload_base64"] == "e/8="
    assert letters[0]["first"] == "2023-11-14T22:13:20.000000Z"


def test_show_gives_one_letter_whole(gateway, filled):
    """Every fact there is about it, each on its line, whatever the sender put in."""
    ran = gateway("dlq", "show", filled, "g/2/1/0")
    assert ran.code == 0
    assert r"by ingest: json, not JSON\nat all" in ran.out
    assert "tries     1, " in ran.out
    assert ran.lines[-1].strip() == "0x7bff"
    assert json.loads(gateway("dlq", "show", "-d", filled, "g/1/1/4", "--json").out)["attempts"] == 3


def test_show_says_what_is_not_there(gateway, filled):
    """Exit code 1, with what was found shown all the same."""
    ran = gateway("dlq", "show", filled, "g/1/1/4", "nobody")
    assert ran.code == 1
    assert "g/1/1/4" in ran.out
    assert ran.err == "nobody: the dead-letter log does not hold it\n"


# Replaying. The configuration is handed over ready-made: reading it is another room's test.


@pytest.fixture
def settings(filler, monkeypatch):
    settings = Settings(
        gateway_id="g", data_dir=filler.data_dir, topics=(TopicSettings(topic="devices/{device}/climate"),)
    )
    monkeypatch.setattr("gateway.cli.dlq.load_settings", lambda path: settings)
    return settings


def events_in(data_dir):
    return [event for batch in inspect.scan_log(data_dir) if isinstance(batch, Batch) for event in batch.events()]


def test_replay_without_a_gateway_writes_to_the_log_itself(gateway, filled, settings):
    """The event is in the log, marked; the letter is no longer listed; a second time does nothing."""
    ran = gateway("dlq", "replay", "-c", "gateway.yaml", "g/1/1/4")
    assert (ran.code, ran.out) == (0, "1 put back\n")
    (event,) = events_in(filled)
    assert (event.payload, event.flags & REPLAYED) == (b'{"t": 21.5}', REPLAYED)
    assert [line.split()[2] for line in gateway("dlq", "list", filled).lines] == ["g/2/1/0", "g/1/1/9"]
    assert "[replayed]" in gateway("dlq", "list", filled, "--all").lines[0]
    ran = gateway("dlq", "replay", "-c", "gateway.yaml", "g/1/1/4")
    assert (ran.code, ran.out) == (1, "0 put back\n")
    assert ran.err == "g/1/1/4: it has been put back already\n"
    assert len(events_in(filled)) == 1


def test_replaying_all_is_no_failure_when_some_are_refused_again(gateway, filled, settings):
    """`--all` asks for what can be put back; what cannot is told, and stays a dead letter."""
    ran = gateway("dlq", "replay", "-c", "gateway.yaml", "--all", "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert (len(result["replayed"]), list(result["refused"])) == (1, ["g/2/1/0", "g/1/1/9"])


class Running:
    """A gateway's store and API on a loop in a thread of their own, as another process would have them."""

    def __init__(self, settings, clock, status):
        self._settings, self._clock, self._status = settings, clock, status
        self._ready = threading.Event()
        self._loop = None
        self._end = None
        self.url = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        log.configure(io.StringIO())  # stdout is the command's own
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)

    async def _run(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        store = Store(self._settings.data_dir, "g", LogSettings(), self._clock, lambda error: None)
        ingest = Ingest(self._settings.topics, store.events, store.dead_letters, store.committer)
        server = WebServer(
            HttpSettings(port=0), lambda: self._status, replay=Replayer(store, self._settings.data_dir, ingest)
        )
        try:
            await server.start()
            self.url = f"http://127.0.0.1:{server.port}"
            self.port = server.port
            self._ready.set()
            await self._end.wait()
            await server.stop()
        finally:
            await store.close()


@pytest.fixture
def running(settings, filled, clock, a_status):
    with Running(settings, clock, a_status()) as running:
        yield running


def test_replay_beside_a_running_gateway_asks_it(gateway, running, filled, settings, monkeypatch):
    """The data directory is in use, so the gateway that holds it does the work, found over its configured address."""
    object.__setattr__(settings, "http", HttpSettings(port=running.port))
    ran = gateway("dlq", "replay", "-c", "gateway.yaml", "g/1/1/4")
    assert (ran.code, ran.out) == (0, "1 put back\n")
    assert [event.payload for event in events_in(filled)] == [b'{"t": 21.5}']


def test_replay_by_url_needs_no_configuration(gateway, running, filled):
    """Whoever knows the address needs no file."""
    ran = gateway("dlq", "replay", "--url", running.url, "nobody", "g/1/1/4")
    assert (ran.code, ran.out) == (1, "1 put back\n")
    assert ran.err == "nobody: the dead-letter log does not hold it\n"


def test_the_other_commands_work_beside_a_running_gateway(gateway, running, filled):
    """Reading takes no lock."""
    assert len(gateway("dlq", "list", filled).lines) == 3
    assert gateway("log", "verify", filled).code == 0
    assert gateway("log", "info", filled).code == 0


def test_a_gateway_without_an_api_must_be_stopped_first(gateway, running, settings):
    """One line that says who holds the directory, and no second writer."""
    object.__setattr__(settings, "http", None)
    ran = gateway("dlq", "replay", "-c", "gateway.yaml", "--all")
    assert (ran.code, ran.out) == (1, "")
    assert "in use" in ran.err
    assert len(ran.err.splitlines()) == 1
