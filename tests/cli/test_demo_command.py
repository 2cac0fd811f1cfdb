"""`gateway demo` as it is run: without a terminal, to its end, with an exit code that somebody else can rely on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LYING_UPSTREAM = """
import sys
from pathlib import Path
from gateway.cli import demo_run

class Lying(demo_run.HttpUpstream):
    async def _take(self, request):
        answer = await super()._take(request)
        self.count._seen.pop()
        return answer

demo_run.HttpUpstream = Lying
sys.exit(demo_run.run_demo(3.0, 4, 7, Path(sys.argv[1])))
"""
LINE = re.compile(r"^0:\d\d\b.*cloud-http (up|down) [\d,]+ \(\+[\d,]+\)")


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_it_prints_a_line_a_second_and_ends_with_an_account_that_balances(tmp_path):
    """Law L7: into a pipe it writes plain lines, then where every event went; exit code 0 only if it adds up."""
    demo = start("-m", "gateway.cli", "demo", "--for", "10s", "--data-dir", str(tmp_path))
    out, err = demo.communicate(timeout=90)
    lines = [line for line in out.splitlines() if LINE.match(line)]
    assert (demo.returncode, err) == (0, "")
    assert 3 <= len(lines) <= 10, out
    assert any("down" in line for line in lines), "the cut is seen"
    assert "\x1b" not in out
    assert "every event is accounted for, and upstream agrees" in out.splitlines()[-1]
    again = start("-m", "gateway.cli", "demo", "--for", "10s", "--data-dir", str(tmp_path))
    _, err = again.communicate(timeout=30)
    assert again.returncode == 2
    assert "holds the data of an earlier run" in " ".join(err.replace("│", " ").split())


def test_an_upstream_that_has_seen_one_event_less_makes_it_fail(tmp_path):
    """Law L7: the account is checked by somebody who shares no count with the gateway."""
    demo = start("-c", LYING_UPSTREAM, str(tmp_path))
    out, _ = demo.communicate(timeout=90)
    assert demo.returncode == 1, out
    assert re.search(r"✗ cloud-http: [\d,]+ delivered, but upstream saw [\d,]+", out), out


def test_sigterm_ends_it_early_with_the_account(tmp_path):
    """Law: however it is ended, it says where every event went."""
    demo = start("-m", "gateway.cli", "demo", "--for", "5m", "--data-dir", str(tmp_path))
    assert demo.stdout is not None
    assert LINE.match(demo.stdout.readline())
    demo.send_signal(signal.SIGTERM)
    out, err = demo.communicate(timeout=90)
    assert (demo.returncode, err) == (0, "")
    assert "every event is accounted for, and upstream agrees" in out.splitlines()[-1]
