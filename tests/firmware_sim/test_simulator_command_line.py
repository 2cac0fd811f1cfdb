"""What the command line takes, and how it refuses the rest: one line on stderr, exit code 2."""

from __future__ import annotations

import shlex

import pytest

from firmware_sim import Skew, Span
from firmware_sim.__main__ import main
from firmware_sim.options import parse_options


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--devices", "0"], "'0' is not a whole number from 1"),
        (["--devices", "many"], "not a whole number"),
        (["--seed", "x"], "invalid int value"),
        (["--loss", "1.5"], "not a probability from 0 to 1"),
        (["--nan", "nan"], "not a probability"),
        (["--speed", "0"], "not greater than 0"),
        (["--speed", "nan"], "not greater than 0"),
        (["--rate", "-1"], "not greater than 0"),
        (["--for", "30"], "write 30s for seconds"),
        (["--interval", "0s"], "not greater than 0"),
        (["--stuck", "greenhouse"], "not of the form name@start..end"),
        (["--silence", "greenhouse@2m..1m"], "ends before it starts"),
        (["--silence", "greenhose@1m.."], "there is no device 'greenhose'"),
        (["--clock-skew", "living=soon"], "not a duration"),
        (["--protocol", "3"], "invalid choice"),
        (["--broker", "http://127.0.0.1"], "must look like mqtt://"),
        (["--broker", "mqtt://127.0.0.1:99999"], "not a URL"),
        (["--journal", "/nowhere/at/all.jsonl"], "No such file or directory"),
        (["--colour"], "unrecognized arguments"),
    ],
)
def test_a_bad_argument_is_told_in_one_line_with_exit_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing has started, nothing is on stdout, and there is no traceback."""
    try:
        code = main([*arguments, "--quiet"])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("firmware_sim: ")
    assert sentence in err


def test_a_password_in_a_bad_url_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Secrets stay out of terminals and logs."""
    assert main(["--broker", "http://me:hunter2@127.0.0.1"]) == 2
    assert "hunter2" not in capsys.readouterr().err


def test_faults_are_read_as_the_readme_writes_them() -> None:
    """The documented command line is the one that works."""
    command = (
        "--loss 0.05 --duplicates 0.02 --reorder 0.02 --stuck greenhouse@10m..20m --nan 0.01 --clock-skew 30s"
        " --clock-skew=living=-1m --silence '*@1h..' --for 30s --connections 4 --protocol 5 --json"
    )
    options = parse_options(shlex.split(command))
    faults = options.faults
    assert (faults.loss, faults.duplicates, faults.reorder, faults.nan) == (0.05, 0.02, 0.02, 0.01)
    assert faults.stuck == (Span("greenhouse", 600.0, 1_200.0),)
    assert faults.silence == (Span("*", 3_600.0),)
    assert faults.clock_skew == (Skew("*", 30.0), Skew("living", -60.0))
    assert (options.duration_s, options.connections, options.link.protocol, options.as_json) == (30.0, 4, 5, True)
