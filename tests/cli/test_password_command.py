"""`gateway password`: what it prints is what the configuration takes."""

import subprocess
import sys

from argon2 import PasswordHasher

from gateway.config.document import Problems, parse_file, plain


def run(*arguments, given=""):
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "password", *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_prints_an_entry_for_users(tmp_path):
    """Whatever the name is made of; the password itself stands nowhere."""
    done = run('he"ater: 1', given="geheim\n")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "users.yaml").write_text(f"users:\n{done.stdout}")
    (entry,) = plain(parse_file(tmp_path / "users.yaml", Problems()))["users"]
    assert entry["username"] == 'he"ater: 1'
    assert PasswordHasher().verify(entry["password_hash"], "geheim")
    assert "geheim" not in done.stdout


def test_an_empty_password_is_none():
    """Usage, exit code 2."""
    assert run("heater", given="\n").returncode == 2
