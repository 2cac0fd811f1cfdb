"""`systemd/`: the unit lets the gateway do its work, and nothing else."""

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.config.loader import load

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "gateway.service"
HIGHEST_EXPOSURE = 1.4
"""As `systemd-analyze security` counts it. What the gateway has and a hermit has not: the network, a notification
socket, the kernel's clock state and boot id. Lower it when the unit gets better; never raise it without a reason."""
_PR_SET_MDWE, _PR_GET_MDWE, _REFUSE_EXEC_GAIN = 65, 66, 1


@pytest.fixture(scope="module")
def directives():
    """Every directive of the unit, with all its values in order."""
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


@pytest.fixture
def analyze():
    """Runs systemd-analyze; where there is none that is said, and fails in CI."""
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "systemd-analyze is missing, the unit is not checked: apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(*words):
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_exposure_of_the_unit_stays_as_low_as_it_is(analyze):
    """Whoever takes a restriction away sees the figure rise, and has to say why."""
    ran = analyze("security", "--offline=true", "--no-pager", f"--threshold={round(HIGHEST_EXPOSURE * 10)}", UNIT)
    figure = re.search(r"Overall exposure level for gateway\.service: ([0-9.]+)", ran.stdout)
    assert figure, ran.stderr
    assert (ran.returncode, float(figure[1])) == (0, HIGHEST_EXPOSURE)


def test_systemd_understands_every_line_of_the_unit(analyze, tmp_path):
    """A misspelt directive is ignored by systemd; here it is not."""
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    ran = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_stopping_leaves_time_to_drain_and_errors_of_the_operator_stop_the_restarts(directives):
    """Draining takes 10 s at most; exit code 2 does not heal by itself; readiness and the watchdog are told."""
    assert directives["Type"] == ["notify"]
    assert directives["KillSignal"] == ["SIGTERM"]
    assert int(directives["TimeoutStopSec"][0]) > 10
    assert int(directives["WatchdogSec"][0]) > 0
    assert directives["Restart"] == ["on-failure"]
    assert directives["RestartPreventExitStatus"] == ["2"]
    assert directives["ExecStart"] == ["/opt/gateway/bin/gateway run -c /etc/gateway/gateway.yaml"]


def test_the_boot_id_and_the_state_of_the_clock_stay_readable(directives, analyze):
    """Without the boot id every reboot looks like a restart; without adjtimex(2) the clock never counts as right."""
    assert "pid" not in directives["ProcSubset"]
    assert directives["ProtectClock"] in ([], ["no"])
    allowed = set()
    for line in directives["SystemCallFilter"]:
        names = line.removeprefix("~").split()
        calls = {name for name in names if not name.startswith("@")}
        for group in names:
            calls |= _calls(analyze, group) if group.startswith("@") else set()
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    assert {"adjtimex", "clock_adjtime"} <= allowed
    assert {"fdatasync", "openat", "flock", "accept4", "epoll_wait", "clock_gettime"} <= allowed | _calls(
        analyze, "@default"
    )
    assert not {"mount", "ptrace", "settimeofday", "clock_settime", "init_module", "reboot", "setuid"} & allowed


def _calls(analyze, group):
    found = set()
    for line in analyze("syscall-filter", "--no-pager", group).stdout.splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            found |= _calls(analyze, name)
        elif name and not name.startswith("#"):
            found.add(name)
    return found


def test_the_gateway_loads_where_memory_is_never_writable_and_executable():
    """MemoryDenyWriteExecute: no library of ours may need to make code at run time."""
    program = """
import ctypes, importlib, pkgutil, sys
libc = ctypes.CDLL(None)
assert libc.prctl(int(sys.argv[1]), 1, 0, 0, 0) == 0
assert libc.prctl(int(sys.argv[2]), 0, 0, 0, 0) == 1
import gateway
for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import influxdb_client, uvloop, zstandard
ctypes.CFUNCTYPE(None)(lambda: None)()
"""
    if ctypes.CDLL(None).prctl(_PR_GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    ran = subprocess.run(
        [sys.executable, "-c", program, str(_PR_SET_MDWE), str(_PR_GET_MDWE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_installation_that_is_written_down_gives_a_sound_configuration(tmp_path):
    """The README's edit of the default configuration puts all data where the unit lets the gateway write."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.yaml").write_text("rules: []\n")
    shutil.copy(ROOT / "config" / "gateway.yaml", tmp_path)
    (line,) = re.findall(r"^sudo (sed -i .*)$", (ROOT / "systemd" / "README.md").read_text(), re.MULTILINE)
    *command, target = shlex.split(line)
    assert target == "/etc/gateway/gateway.yaml"
    subprocess.run([*command, "gateway.yaml"], cwd=tmp_path, check=True, timeout=20)
    settings = load(tmp_path / "gateway.yaml").settings
    assert settings.data_dir == Path("/var/lib/gateway")
    assert settings.rules == (tmp_path.resolve() / "rules" / "a.yaml",)
    assert all(sink.path.is_relative_to("/var/lib/gateway") for sink in settings.forward)


def test_the_production_configuration_reads_credentials_as_the_unit_hands_them_over(directives):
    """LoadCredential on a directory names each file ID_NAME (systemd.exec(5)); the configuration must say the same."""
    identifier, _, directory = directives["LoadCredential"][0].partition(":")
    assert directory == "/etc/gateway/credentials"
    text = (ROOT / "config" / "production.yaml").read_text()
    named = re.findall(r": \$\{CREDENTIALS_DIRECTORY\}/(\S+)", text)
    assert len(named) >= 4
    assert all(name.startswith(f"{identifier}_") for name in named)
