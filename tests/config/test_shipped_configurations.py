"""The files in `config/`: each loads as it ships, and `reference.yaml` says what the code does."""

import itertools
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from gateway.cli.configuration import load_all
from gateway.config.document import Problems, parse_file, plain
from gateway.config.loader import load
from gateway.config.section import Section
from gateway.config.settings import FileSinkSettings
from gateway.errors import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "config").glob("*.yaml"))
REFERENCE = ROOT / "config" / "reference.yaml"
VARIABLES = (
    "DEVICES_PASSWORD",
    "BROKER_PASSWORD",
    "CLOUD_PASSWORD",
    "HOOK_TOKEN",
    "INFLUX_TOKEN",
    "SMTP_PASSWORD",
    "NTFY_TOKEN",
)


@pytest.fixture
def environment(tmp_path, monkeypatch, certificates):
    """What the shipped configurations take from outside: variables, and a directory of credentials."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    shutil.copy(certificates / "a.crt", credentials / "gateway_tls.crt")
    shutil.copy(certificates / "a.key", credentials / "gateway_tls.key")
    for name in ("devices.password", "cloud.password", "influx.token"):
        (credentials / f"gateway_{name}").write_text("s3cret\n")
    for path in credentials.iterdir():
        path.chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("ONCALL_WEBHOOK", "https://example.org/hooks/oncall")
    for name in VARIABLES:
        monkeypatch.setenv(name, "s3cret")


@pytest.fixture
def settings_of(tmp_path, environment):
    """Loads a changed copy of `reference.yaml`."""

    def changed(text):
        folder = tmp_path / "config"
        folder.mkdir(exist_ok=True)
        (tmp_path / "rules").mkdir(exist_ok=True)
        (tmp_path / "rules" / "a.yaml").write_text("rules: []\n")
        path = folder / "reference.yaml"
        path.write_text(text)
        return load(path).settings

    return changed


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_configuration_loads_as_it_is(path, environment):
    """Copy, start: with the secrets that it names in place there is nothing to correct."""
    load(path)


def test_the_configurations_that_are_spoken_of_are_there():
    """`gateway run -c config/gateway.yaml` and what its comments point to."""
    assert {path.name for path in SHIPPED} >= {
        "gateway.yaml",
        "beside-a-broker.yaml",
        "production.yaml",
        "reference.yaml",
    }


@pytest.mark.parametrize("name", ["gateway.yaml", "beside-a-broker.yaml", "production.yaml"])
def test_what_is_meant_to_be_copied_gives_no_warning(name, environment):
    """A warning that everyone sees is one that nobody reads. With the rules that ship: all they wait for is stored."""
    assert load_all(ROOT / "config" / name).warnings == ()


def test_the_default_works_out_of_the_box():
    """Only this machine is listened to, no secret is needed, and events go to a file inside the data directory."""
    settings = load(ROOT / "config" / "gateway.yaml").settings
    assert settings.listen is not None
    assert settings.http is not None
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 1883)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8080)
    (sink,) = settings.forward
    assert isinstance(sink, FileSinkSettings)
    assert sink.path.is_relative_to(settings.data_dir)
    assert settings.rules


def test_configurations_that_run_side_by_side_share_nothing():
    """The default and the one beside a broker: other directories, other ports."""
    one = load(ROOT / "config" / "gateway.yaml").settings
    other = load(ROOT / "config" / "beside-a-broker.yaml").settings
    assert other.data_dir == ROOT / "config" / "data-beside"
    assert one.data_dir != other.data_dir
    assert one.http != other.http


def test_the_commented_parts_of_the_default_are_right_as_well(tmp_path):
    """Whoever takes a comment sign away gets what they expect."""
    lines = (ROOT / "config" / "gateway.yaml").read_text().splitlines()
    taken = [re.sub(r"^( *)# (?=(-|  ?\w+:|\w+: ))", r"\1", line) if line.startswith("  ") else line for line in lines]
    text = "\n".join(taken).replace("${CLOUD_PASSWORD}", "s3cret").replace("../rules", str(ROOT / "rules"))
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    settings = load(path).settings
    assert settings.connect is not None
    assert [sink.name for sink in settings.forward] == ["archive", "cloud", "history", "hook"]
    assert settings.notify[0].url == "https://example.org/hooks/oncall"


def _claims():
    """Lines of the reference: `key: value   # [default]` or `# required`."""
    for number, line in enumerate(REFERENCE.read_text().splitlines()):
        match = re.match(r"(?P<indent> *)(?P<dash>- )?(?P<key>\w+): *(?P<value>\S.*?) +# (?P<says>.*)$", line)
        if match and not line.lstrip().startswith("#"):
            yield number, match


DEFAULTS = [(number, m) for number, m in _claims() if m["says"].startswith("[") and m["key"] != "client_id"]
REQUIRED = [(number, m) for number, m in _claims() if m["says"].startswith("required")]


@pytest.mark.parametrize(
    ("number", "claim"), DEFAULTS, ids=lambda each: each["key"] if isinstance(each, re.Match) else ""
)
def test_a_default_in_the_reference_is_what_holds_without_the_key(settings_of, number, claim):
    """The value in brackets and no value at all are the same."""
    lines = REFERENCE.read_text().splitlines()
    default = re.match(r"\[(.*?)\]", claim["says"])[1]
    left_out = [*lines[:number], *lines[number + 1 :]]
    written = [*lines[:number], f"{claim['indent']}{claim['key']}: {_quoted(default)}", *lines[number + 1 :]]
    assert settings_of("\n".join(left_out)) == settings_of("\n".join(written))


@pytest.mark.parametrize(
    ("number", "claim"), REQUIRED, ids=lambda each: each["key"] if isinstance(each, re.Match) else ""
)
def test_a_key_that_the_reference_calls_required_is_missed(settings_of, number, claim):
    """Without it the gateway does not start."""
    lines = REFERENCE.read_text().splitlines()
    lines[number] = f"{claim['indent']}-" if claim["dash"] else ""
    with pytest.raises(ConfigError) as refused:
        settings_of("\n".join(lines))
    assert any(f"`{claim['key']}` is missing" in problem for problem in refused.value.problems)


def test_the_reference_makes_claims():
    """A change of its form cannot empty the two tables above unnoticed."""
    assert len(DEFAULTS) >= 30
    assert len(REQUIRED) >= 14


def test_the_reference_has_every_key_that_is_read(environment, monkeypatch):
    """A key that is added to the code and not to the reference fails here. `KEY_file` is told of in its head."""
    missing = set()
    done = Section.done

    def record(section):
        present = section._node.items
        missing.update(f"line {section.mark.line}: {key}" for key in section._asked if key not in present)
        done(section)

    monkeypatch.setattr(Section, "done", record)
    load(REFERENCE)
    tree = parse_file(REFERENCE, Problems())
    assert tree is not None
    document = plain(tree)
    # The head tells of KEY_file, comments of what stands beside another key; the first sink has what all sinks have,
    # the listener what every `tls` has.
    told = {
        "password_file",
        "token_file",
        "password_hash",
        "crl",
        *document["forward"][0],
        *document["mqtt"]["listen"]["tls"],
    }
    assert missing
    assert not {each for each in missing if each.split(": ")[1] not in told}


def test_the_reference_names_every_type_of_sink(environment):
    """One entry each."""
    tree = parse_file(REFERENCE, Problems())
    assert tree is not None
    document = plain(tree)
    assert [entry["type"] for entry in document["forward"]] == ["mqtt", "http", "influxdb", "file"]


def _quoted(value):
    return f'"{value}"' if value.startswith("{") else value


@pytest.fixture
def mosquitto(tmp_path):
    """A broker with the shipped snippet, on a port and in a directory of this test."""
    program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    assert program is not None, "this test needs mosquitto: apt-get install mosquitto mosquitto-clients"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (ROOT / "config" / "mosquitto.conf").read_text()
    assert "listener 1883 127.0.0.1" in text
    text = text.replace("listener 1883", f"listener {port}").replace("/var/lib/mosquitto/", f"{tmp_path}/")
    (tmp_path / "mosquitto.conf").write_text(text + "user root\n")
    broker = subprocess.Popen([program, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.PIPE, text=True)
    try:
        said = list(itertools.takewhile(lambda line: "running" not in line, broker.stderr))
        assert broker.poll() is None, said
        yield port
    finally:
        broker.terminate()
        broker.communicate(timeout=20)


def test_mosquitto_with_the_snippet_keeps_what_it_acknowledged(mosquitto):
    """3,000 events for an absent gateway: all are there when it comes back, in order. Without it 2,000 are dropped."""
    common = ["-h", "127.0.0.1", "-p", str(mosquitto), "-q", "1", "-t", "devices/a/climate"]
    absent = ["mosquitto_sub", *common, "-c", "-i", "gateway-greenhouse-01"]
    subprocess.run([*absent, "-E"], check=True, timeout=20)
    events = [f"event {number}" for number in range(3_000)]
    subprocess.run(["mosquitto_pub", *common, "-l"], input="\n".join(events) + "\n", text=True, check=True, timeout=60)
    back = subprocess.run([*absent, "-C", "3000", "-W", "30"], check=True, capture_output=True, text=True, timeout=60)
    assert back.stdout.splitlines() == events
