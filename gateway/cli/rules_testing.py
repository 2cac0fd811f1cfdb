"""`gateway rules test`: the tests that stand beside rules, on virtual time."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.places import ConfigOption, JsonOption, load_settings

if TYPE_CHECKING:
    from gateway.rules.reading.trigger_reader import Site
    from gateway.rules.trying.testing import Verdict
    from gateway.rules.trying.timeline_reader import Suite

_WIDTH = 110
"""Where nobody says how wide the terminal is."""
_Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATH...]", help="Files NAME.test.yaml, rule files beside which they stand, directories."),
]


def run_tests(
    paths: _Paths = None,
    config: ConfigOption = None,
    word: Annotated[str, typer.Option("-k", metavar="WORD", help="Only tests with this in their name or file.")] = "",
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report, too.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name the tests that pass, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the tests beside rules: a timeline of events, and what must come of it. Takes no time and starts nothing.

    Without PATH it runs those beside the rules of the configuration. Exit code 1 if a test fails.
    """
    import shutil

    from gateway.cli import rules_test_view as view
    from gateway.rules.trying.testing import play

    if not paths and config is None:
        raise typer.BadParameter("give the tests' PATHs, or --config FILE for those beside its rules")
    files, site = _find(paths, config)
    suites = _load(files, site, as_json=as_json)
    chosen = [(suite, line) for suite in suites for line in suite.timelines if _is_meant(word, suite, line.name)]
    if not chosen:
        raise typer.BadParameter(f"no test has `{word}` in its name or file" if word else "no tests there")
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    verdicts: list[tuple[str, Verdict]] = []
    for suite, timeline in chosen:
        verdicts.append((str(suite.path), play(timeline, suite.ruleset)))
        if not as_json and (verbose or verdicts[-1][1].failure is not None):
            typer.echo(view.verdict_text(*verdicts[-1], width))
    if junit is not None:
        _write(junit, view.junit(verdicts))
    typer.echo(view.verdicts_json(verdicts) if as_json else view.summary(verdicts))
    if any(verdict.failure is not None for _, verdict in verdicts):
        raise typer.Exit(1)


def _find(paths: list[Path] | None, config: Path | None) -> tuple[list[Path], "Site | None"]:
    """Files of tests, and what the configuration says about the gateway, if there is one."""
    site = None
    beside: list[Path] = []
    if config is not None:
        from gateway.rules.reading.language import site_of

        settings = load_settings(config)
        site = site_of(settings)
        beside = [test for rules in settings.rules if (test := _test_of(rules)).is_file()]
        if not paths and not beside:
            raise typer.BadParameter(f"no test stands beside the rules of {config}")
    found = [file for path in paths for file in _tests_at(path)] if paths else beside
    return list(dict.fromkeys(found)), site


def _tests_at(path: Path) -> Iterable[Path]:
    from gateway.rules.trying.timeline_reader import SUFFIX

    if path.is_dir():
        found = sorted(file for file in path.rglob("*" + SUFFIX) if not _is_hidden(file.relative_to(path)))
        if not found:
            raise typer.BadParameter(f"no file in {path} is named *{SUFFIX}")
        return found
    return [path if path.name.endswith(SUFFIX) else _test_of(path)]


def _test_of(rules: Path) -> Path:
    from gateway.rules.trying.timeline_reader import SUFFIX

    return rules.with_name(rules.name.removesuffix(".yaml").removesuffix(".yml") + SUFFIX)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _load(files: list[Path], site: "Site | None", *, as_json: bool) -> list["Suite"]:
    """Read them all before any runs, so that every problem is told at once."""
    from gateway.errors import ConfigError
    from gateway.rules.trying.timeline_reader import load_tests

    suites: list[Suite] = []
    problems: list[str] = []
    for file in files:
        try:
            suites.append(load_tests(file, site))
        except ConfigError as error:
            problems += error.problems
    problems = list(dict.fromkeys(problems))  # two files of tests may name the same rules
    if problems and as_json:
        import json

        typer.echo(json.dumps({"ok": False, "problems": problems}, ensure_ascii=False))
        raise typer.Exit(2)
    if problems:
        raise ConfigError(problems)
    return suites


def _is_meant(word: str, suite: "Suite", name: str) -> bool:
    return word.casefold() in name.casefold() or word.casefold() in suite.path.name.casefold()


def _write(path: Path, text: str) -> None:
    from gateway.errors import StorageError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
