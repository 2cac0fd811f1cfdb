"""The demo on a terminal: one screen that shows every stage at work, and the account at the end. Pure rendering.

    title, clock
    the uplink's timeline with its cut
    devices            | log
    rules              | the commands they gave
    sinks, each with what is pending

Invariants:
- Everything fits into the given width and height, from 80 x 24 up; what does not fit is counted, not cut off silently.
- The screen shows the status and nothing else: it computes no figure of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.cli.demo_state import Phase
from gateway.cli.words import count, duration, size
from gateway.observe.status import balances
from gateway.observe.text import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console, RenderableType

    from gateway.cli.demo_state import DemoState, Device, Witness
    from gateway.observe.status import SinkStatus

MIN_WIDTH, MIN_HEIGHT = 80, 24

_UP, _CUT, _WARM, _QUIET, _FRAME = "green", "red", "dark_orange", "bright_black", "bright_black"
_PENDING = "yellow"
_BLOCKS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"
_PHASE_STYLES = {Phase.BEFORE: _UP, Phase.CUT: f"bold {_CUT}", Phase.CATCHING_UP: _PENDING, Phase.LEVEL: _UP}


def can_draw(console: Console) -> bool:
    """Whether the screen fits; where it does not, print `plain_line` once a second."""
    drawable = (console.encoding or "").lower().startswith("utf")
    return console.is_terminal and drawable and console.width >= MIN_WIDTH and console.height >= MIN_HEIGHT


def screen(state: DemoState, width: int, height: int) -> Layout:
    """The whole screen.

    Args:
        state: what to show.
        width: columns, at least `MIN_WIDTH`.
        height: lines, at least `MIN_HEIGHT`.
    """
    sinks_height = max(len(state.status.sinks), 1) + 3
    timeline_height = 2 if height >= 28 else 1
    rest = height - 1 - timeline_height - sinks_height
    top_height = min(max(len(state.devices) + 2, 8), rest - 5)
    left = width // 2
    layout = Layout()
    layout.split_column(
        Layout(_title(state, width), size=1),
        Layout(_timeline(state, width), size=timeline_height),
        Layout(name="top", size=top_height),
        Layout(name="middle", size=rest - top_height),
        Layout(_sinks(state, width), size=sinks_height),
    )
    layout["top"].split_row(
        Layout(_devices(state, left - 4, top_height - 2), size=left), Layout(_log(state, width - left - 4))
    )
    inner = rest - top_height - 2
    layout["middle"].split_row(Layout(_rules(state, left - 4, inner), size=left), Layout(_commands(state, inner)))
    return layout


def accounting(state: DemoState, witnesses: Mapping[str, Witness]) -> Table:
    """Where every event went (L7): a row per account, and what upstream itself has seen."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Where every event went: received = delivered + dead letters + evicted + pending",
        title_style="bold",
        title_justify="left",
        header_style=_QUIET,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    for title in ("received", "delivered", "dead", "evicted", "pending"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in ("upstream", "twice"):
        table.add_column(title, justify="right", no_wrap=True)
    for balance in balances(state.status):
        witness = witnesses.get(balance.account)
        table.add_row(
            shorten(balance.account, 16),
            count(balance.received),
            count(balance.delivered),
            count(balance.dead_lettered),
            count(balance.evicted),
            count(balance.pending),
            Text("✗ " + count(balance.missing), style=f"bold {_CUT}") if balance.missing else Text("✓", style=_UP),
            "" if witness is None else count(witness.distinct),
            "" if witness is None else count(witness.duplicates),
        )
    return table


def plain_line(state: DemoState) -> str:
    """The demo at this second on one line, for where there is no terminal."""
    status = state.status
    sinks = "  ".join(
        f"{sink.name} {'up' if sink.up else 'down'} {count(sink.delivered)} (+{count(sink.pending)})"
        for sink in status.sinks
    )
    heaters = sum(device.heater is True for device in state.devices)
    return (
        f"{_clock(state.elapsed_s)}  uplink {state.phase_sentence}  |  {count(state.events_per_s)}/s"
        f"  stored {count(status.ingest.stored)}  durable {status.log.durable_seq:,}  |  {sinks}"
        f"  |  {count(sum(rule.firings for rule in status.rules))} firings, {heaters} heaters on"
    )


def _title(state: DemoState, width: int) -> RenderableType:
    status = state.status
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    fine = status.healthy and status.ready
    left = Text.assemble((" ● ", _UP if fine else _CUT), (shorten(status.gateway_id, width // 3), "bold"))
    left.append("  edge event gateway", _QUIET)
    devices = status.listener.connections if status.listener else len(state.devices)
    right = Text.assemble(
        (f"{count(devices)} devices   ", _QUIET),
        (_clock(state.elapsed_s), "bold"),
        (f" of {_clock(state.total_s)} ", ""),
    )
    grid.add_row(left, right)
    return grid


def _timeline(state: DemoState, width: int) -> RenderableType:
    sentence = state.phase_sentence
    cells = width - 12 - max(len(sentence), 24)
    bar = Text(" uplink  ", style=_QUIET)
    for cell in range(cells):
        at_s = (cell + 0.5) * state.total_s / cells
        is_cut = state.cut_from_s <= at_s < state.cut_to_s
        if at_s < state.elapsed_s:
            bar.append("━", _CUT if is_cut else _UP)
        else:
            bar.append("╌" if is_cut else "─", f"{_CUT} dim" if is_cut else _QUIET)
    bar.append(f"  {sentence}", _PHASE_STYLES[state.phase])
    return bar


def _devices(state: DemoState, width: int, lines: int) -> RenderableType:
    shown = state.devices if len(state.devices) <= lines else state.devices[: lines - 1]
    grid = _grid("left", "right", "left")
    for device in shown:
        grid.add_row(_device_name(device, width - 20), Text(device.value, "bold"), _heater(device))
    if hidden := len(state.devices) - len(shown):
        grid.add_row(Text(f"  and {hidden} more", _QUIET), "", "")
    return _panel("devices", grid)


def _device_name(device: Device, width: int) -> Text:
    name = Text.assemble(("● ", _UP if device.alive else _CUT), shorten(device.name, max(width - 2, 8)))
    room = width - 2 - len(device.name) - 1
    if room >= len(device.kind) and device.kind != device.name:
        name.append(f" {device.kind}", _QUIET)
    return name


def _heater(device: Device) -> Text:
    if device.heater is None:
        return Text("")
    return Text("▲ on", f"bold {_WARM}") if device.heater else Text("△ off", _QUIET)


def _log(state: DemoState, width: int) -> RenderableType:
    log = state.status.log
    grid = _grid("left", "left", stretch=1)
    room = width - 13
    rate = f"{count(state.events_per_s)}/s "
    spark = _spark(state.history_per_s, room - len(rate))
    grid.add_row(_label("events"), Text.assemble((rate, "bold"), (spark, "cyan")))
    grid.add_row(_label("appended"), Text(f"{log.appended_seq:,}", "bold"))
    behind = log.appended_seq - log.durable_seq
    durable = Text(f"{log.durable_seq:,}", "bold")
    durable.append("  all on disk" if not behind else f"  {count(behind)} to go", _UP if not behind else _PENDING)
    grid.add_row(_label("durable"), durable)
    if log.sync.count:
        sync = f"{duration(log.sync.quantile_s(0.5))}, {duration(log.sync.max_s)} at most"
        grid.add_row(_label("sync"), shorten(sync, room))
    held = f" {size(log.bytes)} of {size(log.max_bytes)}"
    share = log.bytes / log.max_bytes if log.max_bytes else 0.0
    grid.add_row(_label("on disk"), Text.assemble((_bar(share, room - len(held)), "cyan"), (held, "")))
    evicted = sum(log.evicted.values())
    if evicted:
        grid.add_row(_label("evicted"), Text(count(evicted), _CUT))
    letters = state.status.dead_letters.records
    grid.add_row(_label("dead letters"), Text(count(letters), _PENDING if letters else _QUIET))
    return _panel("log", grid)


def _rules(state: DemoState, width: int, lines: int) -> RenderableType:
    rules = state.status.rules
    shown = rules if len(rules) <= lines else rules[: lines - 1]
    grid = _grid("left", "left", "right")
    for rule in shown:
        style = {"on": _WARM, "heating": _WARM, "true": _WARM, "unknown": _PENDING}.get(rule.state, _QUIET)
        grid.add_row(shorten(rule.id, width), Text(shorten(rule.state, 10), style), count(rule.firings))
    if hidden := len(rules) - len(shown):
        grid.add_row(Text(f"and {hidden} more", _QUIET), "", "")
    return _panel("rules", grid)


def _commands(state: DemoState, lines: int) -> RenderableType:
    grid = _grid("left", "left", "left", stretch=2)
    for command in state.commands[-lines:]:
        grid.add_row(
            Text(_clock(command.at_s), _QUIET), Text(shorten(command.rule, 16)), Text(shorten(command.text, 40), "bold")
        )
    if not state.commands:
        grid.add_row("", Text("none yet", _QUIET), "")
    return _panel("commands given", grid)


def _sinks(state: DemoState, width: int) -> RenderableType:
    table = Table(box=None, expand=True, header_style=_QUIET, pad_edge=False, padding=(0, 1))
    for title, justify in (("sink", "left"), ("", "left"), ("delivered", "right"), ("", "right"), ("pending", "left")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # rich's own literals
    table.columns[-1].ratio = 1
    table.columns[2].min_width, table.columns[3].min_width = 10, 9
    # At least a thousand, so that a handful in flight does not look like a backlog.
    scale = max(state.peak_pending, *(sink.pending for sink in state.status.sinks), 1_000)
    bar_width = max(width - 68, 10)
    for sink in state.status.sinks:
        rate = state.delivered_per_s.get(sink.name, 0.0)
        table.add_row(
            Text.assemble((shorten(sink.name, 14), "bold"), (f" {sink.type}", _QUIET)),
            _sink_state(sink),
            count(sink.delivered),
            Text(f"{count(rate)}/s", _UP if rate else _QUIET),
            _pending(sink, scale, bar_width),
        )
    return _panel("sinks", table)


def _sink_state(sink: SinkStatus) -> Text:
    return Text("● up", _UP) if sink.up else Text("✗ CUT", f"bold {_CUT}")


def _pending(sink: SinkStatus, scale: int, width: int) -> Text:
    text = Text(f"{count(sink.pending):>8} ", "bold" if sink.pending else _QUIET)
    text.append(_bar(sink.pending / scale, width).rstrip(), _PENDING if sink.up else _CUT)
    dead = sum(sink.dead_lettered.values())
    if dead:
        text.append(f"  {count(dead)} dead", _CUT)
    if sink.evicted:
        text.append(f"  {count(sink.evicted)} evicted", _CUT)
    return text


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=f"[bold]{title}", title_align="left", border_style=_FRAME, box=box.ROUNDED)


def _grid(*justify: str, stretch: int = 0) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    for index, side in enumerate(justify):
        grid.add_column(justify=side, no_wrap=True, ratio=1 if index == stretch else None)  # type: ignore[arg-type]
    return grid


def _label(text: str) -> Text:
    return Text(text.ljust(12), style=_QUIET)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _bar(share: float, width: int) -> str:
    """`share` of `width` cells filled, to an eighth of a cell; blanks up to the width."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (_BLOCKS[part] if part else "")).ljust(width)


def _spark(values: tuple[float, ...], width: int) -> str:
    """The newest values as columns, the highest of them a full one."""
    shown = values[-width:] if width > 0 else ()
    top = max(shown, default=0.0)
    return "".join(_HEIGHTS[round(7 * value / top)] if top else _HEIGHTS[0] for value in shown)
