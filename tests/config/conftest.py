"""What the configuration's tests share: a file from a few words, certificates, and what loading it said."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from gateway.config.loader import load
from gateway.errors import ConfigError

SMALLEST = """\
gateway: {id: greenhouse-01}
mqtt: {listen: "mqtt://127.0.0.1:1883"}
ingest: {topics: [{topic: "devices/{device}/{type}"}]}
"""


@pytest.fixture
def smallest() -> str:
    """The least that is a configuration. Three lines."""
    return SMALLEST


@pytest.fixture
def config(tmp_path):
    """Writes a configuration (text or bytes) and returns its path."""

    def write(content: str | bytes, name: str = "gateway.yaml"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def problems_of(config):
    """The problems of a configuration, each without its path: `line:column: message`."""

    def told(content: str | bytes) -> list[str]:
        path = config(content)
        with pytest.raises(ConfigError) as refused:
            load(path)
        assert all(line.startswith(f"{path}:") for line in refused.value.problems)
        return [line.removeprefix(f"{path}:") for line in refused.value.problems]

    return told


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A directory with two certificates and their keys: a.crt, a.key, b.crt, b.key; locked.key is a's, encrypted."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "these tests need openssl: apt-get install openssl"
    directory = tmp_path_factory.mktemp("certificates")

    def run(*words: object) -> None:
        subprocess.run([openssl, *map(str, words)], check=True, capture_output=True, cwd=directory, timeout=30)

    for name in "ab":
        new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt")
    run("pkcs8", "-topk8", "-in", "a.key", "-out", "locked.key", "-passout", "pass:secret")
    for path in directory.iterdir():
        path.chmod(0o600)
    return directory
