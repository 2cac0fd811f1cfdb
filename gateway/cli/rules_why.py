"""`gateway rules why`: why a rule did something, or did not; what came of an event; what a command came from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.places import ConfigOption, JsonOption

if TYPE_CHECKING:
    from gateway.cli.rules_history import Site
    from gateway.rules.compiled import RuleSet

_AROUND_NS = 1_800_000_000_000
"""So long before and behind the time that was asked for."""
_DAY_NS = 86_400_000_000_000
_WEEK_NS = 7 * _DAY_NS


def why(
    rule: Annotated[str | None, typer.Argument(metavar="RULE", help="The id of a rule or thermostat.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Around 06:10, or a time in ISO 8601; half an hour each.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="7d (so long ago), 06:10, or ISO 8601. Default: 1d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="As --since. Default: now.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="Only this captured level of the topic.")
    ] = None,
    event: Annotated[str | None, typer.Option("--event", metavar="ID", help="What came of an event.")] = None,
    command: Annotated[
        str | None, typer.Option("--command", metavar="ID|TOPIC", help="What a command came from; the last to a topic.")
    ] = None,
    config: ConfigOption = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data", "--data-dir", "-d", metavar="DIR", help="The data directory, if not the configuration's."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell why, from the log: every change of state, every near miss, every decision and what became of it.

    Exit codes: 0 told, 1 the log does not hold it, 2 usage or configuration.
    """
    from gateway.cli import rules_history

    if sum(each is not None for each in (rule, event, command)) != 1:
        raise typer.BadParameter("give one of RULE, --event ID, --command ID or TOPIC")
    site = rules_history.find_site(config, data_dir)
    if event is not None:
        _why_event(event, site, as_json=as_json)
        return
    from_ns, to_ns, mark_ns = _times(site, at, since, until, _DAY_NS if rule is not None else _WEEK_NS)
    if rule is not None:
        _why_rule(rule, device, site, (from_ns, to_ns, mark_ns), as_json=as_json)
    elif command is not None:
        _why_command(command, site, from_ns, to_ns if mark_ns is None else mark_ns + 1_000_000_000, as_json=as_json)


def _why_rule(
    name: str, device: str | None, site: "Site", times: tuple[int, int, int | None], *, as_json: bool
) -> None:
    from gateway.cli import rules_account, rules_history, rules_why_view
    from gateway.cli.progress import Reading
    from gateway.rules.trying.replay import warm_up_ns

    rules = _rules(site)
    if rules is not None and name not in rules.fingerprints:
        raise typer.BadParameter(f"there is no rule `{name}`{_meant(name, rules)}")
    from_ns, to_ns, mark_ns = times
    history = rules_history.History(site.data_dir, from_ns, to_ns, 0 if rules is None else warm_up_ns(rules), mark_ns)
    with Reading("replaying", history.size_bytes) as bar:
        found = rules_account.account(history, name, rules, device, bar.advance)
    if as_json:
        typer.echo(rules_why_view.account_json(found))
    else:
        for line in rules_why_view.account_lines(found, rules, site.zone):
            typer.echo(line)


def _why_event(name: str, site: "Site", *, as_json: bool) -> None:
    from gateway.cli import rules_account, rules_chain, rules_history, rules_why_view
    from gateway.cli.progress import Reading
    from gateway.ringlog.inspect import info
    from gateway.rules.trying.replay import warm_up_ns

    rules = _rules(site)
    if rules is None:
        raise typer.BadParameter("which rules an event reached only --config can tell")
    log = info(site.data_dir)
    seq = _seq(name, log.log_id)
    found = rules_chain.event_at(site.data_dir, seq)
    if found is None:
        is_there = log.first_seq <= seq < log.end_seq
        why_not = "is no event, or is damaged" if is_there else f"is not in {log.first_seq} to {log.end_seq - 1}"
        typer.echo(f"no event {seq} in the log: the number {why_not}", err=True)
        raise typer.Exit(1)
    wall_ns = rules_chain.wall_ns_of(site.data_dir, found.stamp)
    history = rules_history.History(
        site.data_dir, wall_ns, wall_ns + rules_account.horizon_ns(rules), warm_up_ns(rules)
    )
    with Reading("replaying", history.size_bytes) as bar:
        told = rules_account.event_account(history, found, wall_ns, rules, bar.advance)
    if as_json:
        typer.echo(rules_why_view.event_json(told))
    else:
        for line in rules_why_view.event_lines(told, site.zone):
            typer.echo(line)


def _why_command(wanted: str, site: "Site", from_ns: int, to_ns: int, *, as_json: bool) -> None:
    from gateway.cli import rules_chain, rules_why_view

    rules = _rules(site)
    found = rules_chain.find_command(site.data_dir, wanted, from_ns, to_ns)
    if found is None:
        typer.echo(f"no command {wanted} in the log in that time; --since 30d looks further back", err=True)
        raise typer.Exit(1)
    chain = rules_chain.chain_of(site.data_dir, found, rules)
    if as_json:
        typer.echo(rules_why_view.chain_json(chain))
    else:
        for line in rules_why_view.chain_lines(chain, site.zone):
            typer.echo(line)


def _rules(site: "Site") -> "RuleSet | None":
    from gateway.rules.reading.language import load_configured

    return None if site.settings is None else load_configured(site.settings)


def _times(
    site: "Site", at: str | None, since: str | None, until: str | None, default_ns: int
) -> tuple[int, int, int | None]:
    """From when, to when, and the instant that was asked for."""
    from gateway.cli.rules_history import time_ns
    from gateway.clock import SystemClock

    now_ns = SystemClock().wall_ns()
    if at is not None:
        if since is not None or until is not None:
            raise typer.BadParameter("--at and --since or --until exclude each other")
        at_ns = time_ns("--at", at, site.zone, now_ns)
        return at_ns - (_AROUND_NS if default_ns == _DAY_NS else default_ns), at_ns + _AROUND_NS, at_ns
    to_ns = now_ns if until is None else time_ns("--until", until, site.zone, now_ns)
    from_ns = to_ns - default_ns if since is None else time_ns("--since", since, site.zone, now_ns)
    if from_ns >= to_ns:
        raise typer.BadParameter("the time until which is not after the time since which")
    return from_ns, to_ns, None


def _seq(name: str, log_id: str) -> int:
    """The number of an event by its id, `gateway/log/epoch/seq`, or by the number alone."""
    parts = name.rsplit("/", 3)
    if not (parts[-1].isascii() and parts[-1].isdigit() and len(parts[-1]) < 20 and len(parts) in {1, 4}):
        raise typer.BadParameter("--event: write an id as gateway/log/epoch/number, or the number alone")
    if len(parts) == 4 and parts[1] != log_id:
        raise typer.BadParameter(f"--event: that is an event of log {parts[1]}, and this is log {log_id}")
    return int(parts[-1])


def _meant(name: str, rules: "RuleSet") -> str:
    import difflib

    near = difflib.get_close_matches(name, rules.fingerprints, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
