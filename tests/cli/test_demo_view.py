"""The demo's screen: it fits, it shows every stage, and its verdict is the law of accounting."""

import io

import msgspec
import pytest
from rich.console import Console

from gateway.cli import demo_view
from gateway.cli.demo_state import DemoState, Device, GivenCommand, Phase, Witness, rates_per_s, verdict
from gateway.observe.status import GatewayStatus, IngestStatus, LogStatus, RuleStatus, SinkStatus

SIZES = [(80, 24), (100, 30), (132, 43), (200, 60)]


def a_status(*, pending=5_210, up=False, uptime_s=15.0, stored=12_345) -> GatewayStatus:
    return GatewayStatus(
        gateway_id="greenhouse-demo",
        version="0.1.0",
        started_wall_ns=0,
        uptime_s=uptime_s,
        ready=True,
        healthy=True,
        log=LogStatus(
            appended_seq=stored, durable_seq=stored, appended=stored, events=stored, bytes=3 << 20, max_bytes=16 << 20,
            segments=2,
        ),
        ingest=IngestStatus(received=stored + 3, stored=stored, rejected={"json": 3}),
        rules=tuple(
            RuleStatus(id=name, kind="rule", state="true", firings=n) for n, name in enumerate(("greenhouse", "door"))
        ),
        sinks=(
            SinkStatus(name="cloud", type="http", up=up, received=stored, delivered=stored - pending, pending=pending),
            SinkStatus(name="headquarters", type="mqtt", up=True, received=stored, delivered=stored, pending=0),
        ),
    )  # fmt: skip


def a_state(**changes) -> DemoState:
    devices = [Device("greenhouse", "thermostat", "21.3 °C", heater=True), Device("door-1", "door", "open")]
    fields = {
        "status": a_status(),
        "devices": (*devices, *(Device(f"climate-{n}", "climate", "19.0 °C") for n in range(8))),
        "elapsed_s": 15.0,
        "total_s": 30.0,
        "cut_from_s": 10.0,
        "cut_to_s": 20.0,
        "events_per_s": 1_234.0,
        "history_per_s": tuple(float(n) for n in range(40)),
        "delivered_per_s": {"cloud": 0.0, "headquarters": 1_234.0},
        "commands": tuple(GivenCommand(float(n), "greenhouse", f"heater {n}") for n in range(15)),
    }
    return DemoState(**(fields | changes))


def draw(state: DemoState, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(demo_view.screen(state, width, height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_screen_fills_the_terminal_exactly(width, height):
    """No line wraps and none scrolls, or a live view would flicker."""
    lines = draw(a_state(), width, height)
    assert len(lines) == height
    assert {len(line) for line in lines} == {width}


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_screen_shows_every_stage(width, height):
    """Devices, the log, rules with their commands, sinks with what is pending, and the cut: all on one screen."""
    text = "\n".join(draw(a_state(), width, height))
    for shown in (
        "devices", "greenhouse", "21.3 °C", "▲ on", "log", "1,234/s", "12,345", "all on disk", "rules", "door",
        "commands given", "heater 14", "sinks", "cloud http", "✗ CUT", "5,210", "● up", "CUT, back in 5 s",
        "0:15 of 0:30",
    ):  # fmt: skip
        assert shown in text


def test_what_does_not_fit_is_counted():
    """Forty devices on a small screen: some are shown, the rest is a number."""
    devices = tuple(Device(f"climate-{n:02}", "climate", "19.0 °C") for n in range(40))
    text = "\n".join(draw(a_state(devices=devices), 80, 24))
    shown = text.count("climate-")
    assert f"and {40 - shown} more" in text


def test_the_newest_commands_are_the_ones_shown():
    """What a rule has just done matters more than what it did first."""
    text = "\n".join(draw(a_state(), 80, 24))
    assert "heater 14" in text
    assert "heater 1 " not in text


def test_hostile_names_break_no_screen():
    """Escapes and newlines in what devices and errors say stay text."""
    devices = (Device("\x1b[2Jx\ny", "climate", "1 °C"),)
    lines = draw(a_state(devices=devices), 80, 24)
    assert len(lines) == 24
    assert not any("\x1b[2J" in line for line in lines)


def test_an_empty_gateway_can_be_drawn():
    """At its very first second there is nothing to show, and it is shown."""
    status = msgspec.structs.replace(a_status(), sinks=(), rules=())
    state = a_state(status=status, devices=(), commands=(), history_per_s=(), elapsed_s=0.0)
    assert len(draw(state, 80, 24)) == 24


@pytest.mark.parametrize(
    ("elapsed_s", "pending", "phase", "sentence"),
    [
        (4.0, 0, Phase.BEFORE, "up, to be cut in 6 s"),
        (10.0, 0, Phase.CUT, "CUT, back in 10 s"),
        (20.0, 5_210, Phase.CATCHING_UP, "back, 5,210 to catch up on"),
        (20.0, 12, Phase.LEVEL, "back, and level"),
    ],
)
def test_the_phase_follows_the_cut(elapsed_s, pending, phase, sentence):
    """Before, during, catching up, level: told from the clock and from what is pending."""
    state = a_state(elapsed_s=elapsed_s, status=a_status(pending=pending))
    assert (state.phase, state.phase_sentence) == (phase, sentence)


def test_catching_up_is_seen_as_a_shrinking_bar():
    """The bars keep the scale of the worst moment."""
    bars = [
        "\n".join(draw(a_state(status=a_status(pending=pending), peak_pending=8_000), 100, 30)).count("█")
        for pending in (8_000, 4_000, 1_000)
    ]
    assert bars[0] > bars[1] > bars[2]


def test_rates_come_from_two_statuses():
    """Events per second are differences, by the gateway's own clock."""
    before, after = a_status(uptime_s=10, stored=10_000), a_status(uptime_s=12, stored=12_000)
    assert rates_per_s(before, after) == (1_000.0, {"cloud": 1_000.0, "headquarters": 1_000.0})
    assert rates_per_s(after, after) == (0.0, {"cloud": 0.0, "headquarters": 0.0})


def account(state, witnesses, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(demo_view.accounting(state, witnesses))
    return console.file.getvalue()


def test_the_account_has_a_row_for_ingest_and_each_sink():
    """L7, as the demo ends with it: every number in full, within 80 columns."""
    text = account(a_state(), {"cloud": Witness(7_135, duplicates=4)})
    rows = {line.split()[0]: line.split() for line in text.splitlines() if "✓" in line or "✗" in line}
    assert rows["ingest"][1:7] == ["12,348", "12,345", "3", "0", "0", "✓"]
    assert rows["cloud"][1:] == ["12,345", "7,135", "0", "0", "5,210", "✓", "7,135", "4"]
    assert rows["headquarters"][1:7] == ["12,345", "12,345", "0", "0", "0", "✓"]


def test_an_account_that_does_not_balance_says_by_how_much():
    """One event astray is a cross and a number, not a rounding."""
    status = a_status()
    sink = msgspec.structs.replace(status.sinks[0], delivered=status.sinks[0].delivered - 1)
    state = a_state(status=msgspec.structs.replace(status, sinks=(sink,)))
    assert "✗ 1" in account(state, {})


def test_the_verdict_is_empty_only_if_everything_adds_up():
    """The demo exits 0 on this list alone: the gateway's account and the upstream's own count must agree."""
    status = a_status()
    honest = {"cloud": Witness(7_135, duplicates=9), "headquarters": Witness(12_345)}
    assert verdict(status, honest) == []
    assert verdict(status, honest | {"cloud": Witness(7_134)}) == ["cloud: 7,135 delivered, but upstream saw 7,134"]
    assert verdict(status, honest | {"cloud": Witness(7_135, 0, 2)}) == ["cloud: upstream saw 2 out of order"]


def test_the_plain_line_is_one_line():
    """Without a terminal, each second is one line that a person and `grep` can read."""
    line = demo_view.plain_line(a_state())
    assert "\n" not in line
    for shown in ("0:15", "CUT, back in 5 s", "1,234/s", "cloud down 7,135 (+5,210)", "headquarters up 12,345 (+0)"):
        assert shown in line


@pytest.mark.parametrize(
    ("options", "drawable"),
    [
        ({"width": 80, "height": 24, "force_terminal": True}, True),
        ({"width": 79, "height": 24, "force_terminal": True}, False),
        ({"width": 80, "height": 23, "force_terminal": True}, False),
        ({"width": 80, "height": 24, "force_terminal": False}, False),
    ],
)
def test_the_screen_is_drawn_only_where_it_fits(options, drawable):
    """A pipe or a small window gets lines."""

    class Utf8(io.StringIO):
        encoding = "utf-8"

    assert demo_view.can_draw(Console(file=Utf8(), **options)) is drawable
