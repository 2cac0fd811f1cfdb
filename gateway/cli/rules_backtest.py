"""`gateway rules backtest`: what other rules would have done with what really happened."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.places import ConfigOption, JsonOption

if TYPE_CHECKING:
    from gateway.cli.rules_history import Site
    from gateway.rules.compiled import RuleSet

_SETTLED_NS = 2_000_000_000


def backtest(
    new: Annotated[list[Path], typer.Argument(metavar="NEW.yaml...", help="The rules to try.")],
    config: ConfigOption = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data", "--data-dir", "-d", metavar="DIR", help="The data directory, if not the configuration's."
        ),
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="7d (so long ago), 06:10, or ISO 8601.")] = "1d",
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="As --since. Default: now.")] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="OLD.yaml", help="Compare with these rules, not with what happened."),
    ] = None,
    warm_up: Annotated[
        str | None,
        typer.Option("--warm-up", metavar="DURATION", help="How much to read before. Default: as long as rules need."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run rules over the gateway's own log, with nobody acting on them, and compare with what happened.

    Exit codes: 0 they would have done the same, 1 something else, 2 usage or configuration.
    """
    from gateway.cli import rules_comparison, rules_history, rules_replay_view
    from gateway.cli.progress import Reading
    from gateway.clock import SystemClock

    site = rules_history.find_site(config, data_dir)
    now_ns = SystemClock().wall_ns()
    from_ns = rules_history.time_ns("--since", since, site.zone, now_ns)
    # What a running gateway has decided just now may not have been recorded yet.
    to_ns = now_ns - _SETTLED_NS if until is None else rules_history.time_ns("--until", until, site.zone, now_ns)
    if from_ns >= to_ns:
        raise typer.BadParameter("the time until which is not after the time since which")
    rules = _load(new, site)
    others = None if against is None else _load(against, site)
    warm_up_ns = _warm_up_ns(warm_up, rules, others)
    history = rules_history.History(site.data_dir, from_ns, to_ns, warm_up_ns)
    with Reading("replaying", history.size_bytes) as bar:
        done = rules_comparison.compare(history, rules, others, bar.advance)
    if as_json:
        typer.echo(rules_replay_view.backtest_json(done))
    else:
        for line in rules_replay_view.backtest_lines(done, site.zone):
            typer.echo(line)
    if not done.same:
        raise typer.Exit(1)


def _load(paths: list[Path], site: "Site") -> "RuleSet":
    from gateway.rules.reading.language import load_configured, load_rules

    return load_rules(paths) if site.settings is None else load_configured(replace(site.settings, rules=tuple(paths)))


def _warm_up_ns(told: str | None, rules: "RuleSet", others: "RuleSet | None") -> int:
    from gateway.config.scalars import Wrong, duration_s
    from gateway.rules.trying.replay import warm_up_ns

    if told is None:
        return max(warm_up_ns(each) for each in (rules, others) if each is not None)
    span_s = duration_s(told)
    if isinstance(span_s, Wrong):
        raise typer.BadParameter(f"--warm-up: {span_s.message}")
    return int(span_s * 1e9)
