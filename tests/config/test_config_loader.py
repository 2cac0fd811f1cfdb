"""`gateway.config.loader`: a file and what it refers to, as settings; all problems at once, no secret in any."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.ingest import filter_problem
from gateway.config.loader import load
from gateway.config.settings import (
    ActSettings,
    ConnectSettings,
    Credentials,
    FileSinkSettings,
    HttpSettings,
    HttpSinkSettings,
    InfluxSinkSettings,
    ListenSettings,
    LogSettings,
    MqttSinkSettings,
    Permission,
    RetrySettings,
    Settings,
    TlsSettings,
    TopicSettings,
    User,
    WebhookSettings,
    WebSocketSettings,
)
from gateway.errors import ConfigError
from gateway.model import Format
from gateway.mqtt.topics import compile_filter

RULE = "rules: []\n"


def test_the_smallest_configuration_has_every_default(config, smallest):
    """Three lines are enough, and the defaults are those of `settings.py`."""
    path = config(smallest)
    assert load(path).settings == Settings(
        gateway_id="greenhouse-01",
        data_dir=path.parent / "data",
        listen=ListenSettings(),
        topics=(TopicSettings(topic="devices/{device}/{type}"),),
        path=path,
    )


def test_every_key_arrives_in_its_setting(config, tmp_path, certificates, monkeypatch):
    """Nothing that can be written is ignored, nothing is mixed up."""
    monkeypatch.setenv("HOOK_TOKEN", "t0ken")
    (tmp_path / "site.yaml").write_text(RULE)
    (tmp_path / "pw").write_text("s3cret\n")
    (tmp_path / "pw").chmod(0o600)
    path = config(f"""\
gateway: {{id: g, data_dir: var, timezone: Europe/Berlin}}
mqtt:
  listen:
    url: mqtts://127.0.0.1:8883
    tls: {{certificate: {certificates}/a.crt, key: {certificates}/a.key, ca: {certificates}/b.crt, clients: optional}}
    users: [{{username: u, password_file: pw}}]
    max_packet: 2KiB
    max_connections: 3
    max_queued_messages: 4
    websocket: {{url: "ws://127.0.0.1:9002", origins: ["https://A.example"]}}
    max_queued: 5KiB
    max_subscriptions: 6
    max_in_flight: 7
    max_messages_per_s: 8
    max_bytes_per_s: 9KiB
    permissions: [{{users: [u], publish: ["a/{{device}}"], subscribe: ["b/#"]}}]
    max_unsettled: 128KiB
    session_expiry_max: 5m
    connect_timeout: 6s
  connect:
    url: mqtts://b:7
    tls: {{ca: {certificates}/a.crt}}
    username: v
    password_file: pw
    client_id: c
    keepalive: 8s
    session_expiry: 9m
    max_unsettled: 256KiB
ingest: {{topics: [{{topic: "a/{{b}}", format: number, max_payload: 1KiB}}]}}
log: {{max_size: 1MiB, segment_size: 64KiB, sync: 50ms, memory: 1KiB, dead_letters_max_size: 256KiB, compress: false,
      audit_max_size: 512KiB, max_age: 2d, when_full: hold}}
rules: site.yaml
forward:
  - {{name: m, type: mqtt, broker: "mqtt://w:x%40y@h", topic: "t/{{b}}", client_id: d, keepalive: 11s, start: now}}
  - {{name: h, type: http, url: "https://h/e?f=1", token: "${{HOOK_TOKEN}}", headers: {{X: y}}, batch: 2, window: 3}}
  - {{name: i, type: influxdb, url: "http://i", bucket: k, org: o, token_file: pw, measurement: "{{b}}", timeout: 12s}}
  - {{name: f, type: file, path: out/f.jsonl, retry: {{base: 1s, max: 13s}}}}
notify: [{{name: n, webhook: "https://n/o"}}, {{name: p}}]
http: {{listen: "127.0.0.1:0"}}
act: {{act_within: 0s, max_age: 14s}}
""")
    at = tmp_path.resolve()
    loaded = load(path)
    assert loaded.warnings == (f"{path}:34:35: the password stands in the address; better: password: ${{NAME}}",)
    assert loaded.settings == Settings(
        gateway_id="g",
        data_dir=at / "var",
        timezone="Europe/Berlin",
        listen=ListenSettings(
            host="127.0.0.1",
            port=8883,
            tls=TlsSettings(
                ca=certificates / "b.crt",
                certificate=certificates / "a.crt",
                key=certificates / "a.key",
                are_clients_certified=False,
            ),
            users=(User(username="u", password="s3cret"),),
            max_packet_bytes=2_048,
            max_connections=3,
            max_queued_messages=4,
            websocket=WebSocketSettings(host="127.0.0.1", port=9_002, origins=frozenset({"https://a.example"})),
            max_queued_bytes=5_120,
            max_subscriptions=6,
            max_in_flight=7,
            max_messages_per_s=8,
            max_bytes_per_s=9_216,
            permissions=(Permission(users=("u",), publish=("a/{device}",), subscribe=("b/#",)),),
            max_unsettled_bytes=131_072,
            session_expiry_max_s=300,
            connect_timeout_s=6.0,
        ),
        connect=ConnectSettings(
            host="b",
            port=7,
            tls=TlsSettings(ca=certificates / "a.crt"),
            credentials=Credentials(username="v", password="s3cret"),
            client_id="c",
            keepalive_s=8,
            session_expiry_s=540,
            max_unsettled_bytes=262_144,
        ),
        topics=(TopicSettings(topic="a/{b}", format=Format.NUMBER, max_payload_bytes=1_024),),
        log=LogSettings(
            max_size_bytes=1 << 20,
            segment_size_bytes=65_536,
            sync_interval_s=0.05,
            tip_bytes=1_024,
            dead_letters_max_size_bytes=262_144,
            audit_max_size_bytes=524_288,
            max_age_s=172_800.0,
            when_full="hold",
            compress=False,
        ),
        rules=(at / "site.yaml",),
        forward=(
            MqttSinkSettings(
                name="m",
                start="now",
                host="h",
                port=1883,
                credentials=Credentials(username="w", password="x@y"),
                client_id="d",
                topic="t/{b}",
                keepalive_s=11,
            ),
            HttpSinkSettings(
                name="h",
                batch_records=2,
                window_records=3,
                url="https://h/e?f=1",
                headers=(("X", "y"), ("Authorization", "Bearer t0ken")),
            ),
            InfluxSinkSettings(
                name="i", timeout_s=12.0, url="http://i", bucket="k", org="o", token="s3cret", measurement="{b}"
            ),
            FileSinkSettings(name="f", retry=RetrySettings(base_s=1.0, max_s=13.0), path=at / "out" / "f.jsonl"),
        ),
        notify=(WebhookSettings(name="n", url="https://n/o"), WebhookSettings(name="p")),
        http=HttpSettings(host="127.0.0.1", port=0),
        act=ActSettings(act_within_s=0.0, max_age_s=14.0),
        path=path,
    )


@pytest.mark.parametrize(("sync", "interval_s"), [("always", 0.0), ("none", None), ("50ms", 0.05), ("0s", 0.0)])
def test_how_often_the_log_is_synced(config, smallest, sync, interval_s):
    """`none` is a word of its own, and not the absence of an answer."""
    assert load(config(f"{smallest}log: {{sync: {sync}}}\n")).settings.log.sync_interval_s == interval_s


def test_all_problems_are_told_at_once_in_file_order(problems_of):
    """One run of `gateway check` is enough: no problem hides another one in a different part of the file."""
    lines = problems_of(
        "gateway: {id: a b, timezone: Mars}\n"
        "mqtt: {listen: 'mqqt://x', conect: 'mqtt://y'}\n"
        "ingest: {topics: [{topic: a/#/b, format: jsn}, {}]}\n"
        "log: {sync: 5, segment_size: 1KiB}\n"
        "rules: [/nowhere]\n"
        "forward: [{name: x, type: file}, {name: x, type: fil}]\n"
        "htp: {}\n"
        "act: {max_age: -1s}\n"
    )
    places = [tuple(map(int, line.split(":")[:2])) for line in lines]
    assert places == sorted(places)
    assert [line for line, _ in places] == [1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 6, 6, 7, 8]


def test_paths_begin_at_the_configuration_file(config, smallest, tmp_path, monkeypatch):
    """Wherever the gateway is started, and through whatever link."""
    (tmp_path / "a.yaml").write_text(RULE)
    path = config(f"{smallest}rules: a.yaml\nforward: [{{name: f, type: file, path: f.jsonl}}]\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.yaml").symlink_to(path)
    monkeypatch.chdir(elsewhere)
    for each in (path, Path("../gateway.yaml"), Path("link.yaml")):
        settings = load(each).settings
        assert settings.rules == (tmp_path.resolve() / "a.yaml",)
        assert settings.data_dir == tmp_path.resolve() / "data"
        (sink,) = settings.forward
        assert isinstance(sink, FileSinkSettings)
        assert sink.path == tmp_path.resolve() / "f.jsonl"


def test_rule_files_are_found_once_and_without_their_tests(config, smallest, tmp_path):
    """Globs overlap, editors leave hidden files, tests stand beside rules: each rule file counts once, sorted."""
    # So many that no order but the sorted one comes about by luck.
    many = [f"x{number:02d}.yaml" for number in range(20)]
    for name in ("b.yaml", "a.yaml", "a.test.yaml", ".b.yaml.swp.yaml", "deep/c.yaml", "notes.txt", *many):
        (tmp_path / "rules" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rules" / name).write_text(RULE)
    path = config(f"{smallest}rules: [rules/b.yaml, 'rules/*.yaml', 'rules/**/*.yaml', '{tmp_path}/rules/a.yaml']\n")
    found = [str(each.relative_to(tmp_path.resolve() / "rules")) for each in load(path).settings.rules]
    assert found == ["a.yaml", "b.yaml", "deep/c.yaml", *many]


def test_a_directory_whose_name_looks_like_a_pattern_is_taken_by_its_name(smallest, tmp_path):
    """`site[1]` is a directory, not a choice of characters."""
    site = tmp_path / "site[1]*"
    site.mkdir()
    (site / "a.yaml").write_text(RULE)
    (site / "gateway.yaml").write_text(smallest + "rules: a*.yaml\n")
    assert load(site / "gateway.yaml").settings.rules == (site.resolve() / "a.yaml",)


def test_rules_that_are_only_tests_are_a_problem(problems_of, smallest, tmp_path):
    """Whoever names a test file as rules is told so."""
    (tmp_path / "a.test.yaml").write_text(RULE)
    assert problems_of(smallest + "rules: '*.test.yaml'\n") == ["4:8: `*.test.yaml` matches only tests (*.test.yaml)"]


@pytest.mark.parametrize("name", ["gateway.yaml", "rules.yaml", "pw"])
def test_a_file_that_everyone_can_write_is_refused(config, smallest, tmp_path, name):
    """Configuration, rules and secrets give orders: nobody else on the machine may write them."""
    (tmp_path / "rules.yaml").write_text(RULE)
    (tmp_path / "pw").write_text("s3cret")
    (tmp_path / "pw").chmod(0o600)
    forward = "forward: [{name: h, type: http, url: http://h, token_file: pw}]\n"
    path = config(f"{smallest}rules: rules.yaml\n{forward}")
    assert not load(path).warnings
    (tmp_path / name).chmod(0o602)
    with pytest.raises(ConfigError) as refused:
        load(path)
    (problem,) = refused.value.problems
    assert problem.endswith(f"anyone on this machine can write {tmp_path.resolve() / name}; chmod o-w it")


def test_a_secret_that_everyone_can_read_is_a_warning(config, smallest, tmp_path):
    """It works, and should not stay so."""
    (tmp_path / "pw").write_text("s3cret")
    (tmp_path / "pw").chmod(0o644)
    path = config(smallest + "forward: [{name: h, type: http, url: http://h, token_file: pw}]\n")
    (warning,) = load(path).warnings
    assert warning == f"{path}:4:60: anyone on this machine can read {tmp_path.resolve() / 'pw'}; chmod o-r it"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * 70_000, "is too large for a secret"),
        (b"one\ntwo\n", "`token_file`: a secret is one line without control characters"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_holds_no_secret_is_a_problem(problems_of, smallest, tmp_path, content, problem):
    """What would only fail at the uplink, at night, fails now."""
    if content is not None:
        (tmp_path / "pw").write_bytes(content)
        (tmp_path / "pw").chmod(0o600)
    (line,) = problems_of(smallest + "forward: [{name: h, type: http, url: http://h, token_file: pw}]\n")
    assert line.startswith("4:60: ")
    assert line.endswith(problem)
    assert "two" not in line


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        ("a.crt", "b.key", "the key belongs to another certificate"),
        (
            "a.crt",
            "locked.key",
            "the key is encrypted, and nobody will be there to type its password; store it decrypted",
        ),
        ("a.crt", "a.crt", "certificate and key are not both PEM"),
        ("a.key", "a.key", "certificate and key are not both PEM"),
    ],
)
def test_certificates_are_tried_before_anything_starts(problems_of, smallest, certificates, certificate, key, problem):
    """A certificate that will not load is a problem with a place, not a listener that fails."""
    tls = f"{{certificate: {certificates}/{certificate}, key: {certificates}/{key}}}"
    listen = f"{{url: 'mqtts://127.0.0.1', tls: {tls}}}"
    (line,) = problems_of(smallest.replace('"mqtt://127.0.0.1:1883"', listen))
    assert line.endswith(f": {problem}")


def test_a_secret_is_in_no_message_and_in_no_repr(config, tmp_path, monkeypatch):
    """Twenty secrets in every place that takes one, in a file full of faults: none of them is told."""
    secrets = [f"canary{index:02d}x" for index in range(20)]
    for index, secret in enumerate(secrets):
        monkeypatch.setenv(f"S{index}", secret + ("\n" if index in {9, 19} else ""))
    sound = """\
gateway: {id: g}
mqtt:
  listen: {url: "mqtt://127.0.0.1:1883", users: [{username: u, password: "${S0}"}]}
  connect: "mqtt://v:${S1}@h"
ingest: {topics: [{topic: a}]}
forward:
  - {name: a, type: mqtt, broker: "mqtt://h", username: w, password: "${S2}"}
  - {name: b, type: http, url: "http://h", token: "${S3}", headers: {X-Api-Key: "${S4}"}}
  - {name: c, type: influxdb, url: "http://h", bucket: b, token: "${S5}"}
notify: [{name: n, webhook: "https://h/${S6}"}]
"""
    loaded = load(config(sound))
    assert "canary" not in repr(loaded)
    assert not [warning for warning in loaded.warnings if "canary" in warning]
    faulty = """\
gateway: {id: "${S7}/", data_dir: "${S8}/\\0", timezone: "${S9}"}
mqtt:
  listen: {url: "${S10}://h", users: [{username: u, password: "${S19}"}], max_packet: "${S11}"}
  connect: "mqtt://v:${S12}/@h:${S13}"
ingest: {topics: [{topic: a, max_payload: "${S14}"}]}
forward:
  - {name: "${S15}/", type: "${S16}"}
  - {name: b, type: http, url: "http://u:${S17}@h", headers: {X: "${S9}"}, window: "${S18}", start: "${S16}"}
  - {name: c, type: http, url: "u:canary-inline@h"}
  - {name: d, type: mqtt, broker: "mqtt://u:canary-inline@h:x"}
  - {name: e, type: mqtt, broker: "mqtt:/u:canary-inline@h", keepalive: "${S11}"}
http: {listen: "${S14}"}
"""
    with pytest.raises(ConfigError) as refused:
        load(config(faulty))
    assert len(refused.value.problems) >= 15
    assert not [problem for problem in refused.value.problems if "canary" in problem]


def test_a_password_of_digits_stays_a_password(config, smallest, monkeypatch):
    """What comes from the environment is text, never YAML."""
    monkeypatch.setenv("PIN", "0123: true")
    path = config(smallest + 'forward: [{name: h, type: http, url: http://h, token: "${PIN}"}]\n')
    (sink,) = load(path).settings.forward
    assert isinstance(sink, HttpSinkSettings)
    assert sink.headers == (("Authorization", "Bearer 0123: true"),)


def test_every_value_may_come_from_the_environment(config, smallest, monkeypatch):
    """Ids, durations, sizes and patterns of a fleet are set outside one shared file."""
    monkeypatch.setenv("SITE", "site-7")
    monkeypatch.setenv("AGE", "5m")
    text = smallest.replace("greenhouse-01", '"${SITE}"') + 'act: {max_age: "${AGE}"}\n'
    settings = load(config(text)).settings
    assert (settings.gateway_id, settings.act.max_age_s) == ("site-7", 300.0)


def test_a_variable_that_is_not_text_is_a_problem(smallest, tmp_path):
    """Bytes of the environment that are not UTF-8 have a place in the file, too."""
    path = tmp_path / "gateway.yaml"
    path.write_text(smallest.replace("greenhouse-01", '"${SITE}"'))
    program = (
        "import pathlib, sys\nfrom gateway.config.loader import load\nfrom gateway.errors import ConfigError\n"
        "try:\n    load(pathlib.Path(sys.argv[1]))\nexcept ConfigError as error:\n    print(*error.problems)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={b"SITE": b"\xff", b"PYTHONPATH": str(Path(__file__).parents[2]).encode()},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == f"{path}:1:15: the environment variable SITE is not UTF-8\n"


def test_a_place_that_cannot_be_looked_at_is_a_problem(problems_of, smallest, tmp_path):
    """Loops of links and names that are too long have a place in the file; nothing is raised."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("loop", "x" * 5_000):
        (line,) = problems_of(smallest + f"forward: [{{name: h, type: http, url: http://h, token_file: {name}}}]\n")
        assert line.startswith("4:60: ")
        assert len(line) < 400
        assert len(problems_of(smallest + f"rules: {name}\n")) == 1


_KEYS = """
gateway id data_dir timezone mqtt listen connect url tls ca certificate key users username password password_file
max_packet keepalive session_expiry ingest topics topic format log max_size sync rules forward name type broker headers
token
token_file bucket path retry base max window batch start notify webhook http act max_age
"""
_WORDS = """
mqtt://h:1 mqtts://h http://h:99999 https://[::1 a/{b} a/# 5m 0s 1GiB 9999999999h off true 7 -1 .nan ~ [] {} always ""
../x /dev/null /proc/self/mem ~x "${HOME}" "${" "\\0" "\\x85" influxdb file mqtt http json 1e400
"""
_LEVELS = st.sampled_from(["a", "", "+", "#", "{a}", "{b}", "a+", "#a", "{", "{}", "{a b}", "x{a}", "ä", "a\0", " "])


@given(st.lists(_LEVELS, min_size=1, max_size=5).map("/".join))
def test_a_topic_filter_is_judged_as_the_listener_judges_it(text):
    """This package may not import `gateway.mqtt`; that its grammar is the same is held here."""
    try:
        compile_filter(text)
    except ValueError:
        assert filter_problem(text) or not text
    else:
        assert not filter_problem(text)


def test_the_limits_of_a_topic_filter_are_those_of_the_listener():
    """Length in bytes, and the number of levels."""
    for text in ("ä" * 32_767, "ä" * 32_768, "/".join("a" * 128), "/".join("a" * 129)):
        try:
            compile_filter(text)
        except ValueError:
            assert filter_problem(text)
        else:
            assert not filter_problem(text)


@pytest.mark.parametrize("_round", range(2))
def test_no_mixture_of_words_is_too_strange(config, seed, _round):
    """Any key with any value anywhere: a configuration, or problems. Nothing else is raised, and nothing is started."""
    dice = random.Random(f"{seed}{_round}")
    keys, words = _KEYS.split(), _WORDS.split()

    def value(depth: int) -> str:
        kind = dice.random()
        if depth > 4 or kind < 0.45:
            return dice.choice(words)
        if kind < 0.6:
            return "[" + ", ".join(value(depth + 1) for _ in range(dice.randint(0, 3))) + "]"
        return "{" + ", ".join(f"{key}: {value(depth + 1)}" for key in dice.sample(keys, dice.randint(0, 6))) + "}"

    for _ in range(150):
        text = "".join(
            f"{key}: {value(0)}\n" for key in ("gateway", "mqtt", "ingest", "log", "rules", "forward", "http")
        )
        problems = []
        try:
            load(config(text))
        except ConfigError as error:
            problems = error.problems or ["an error without a problem\0"]
        assert all(line.isprintable() for line in problems)


def test_settings_can_be_changed_by_value(config, smallest):
    """Tests pass a smaller size by `replace`, not by patching."""
    settings = load(config(smallest)).settings
    assert replace(settings, log=replace(settings.log, segment_size_bytes=65_536)).log.segment_size_bytes == 65_536


def test_what_payloads_hold_can_be_said(config, smallest):
    """For `gateway check` to compare rules with; nothing else depends on it."""
    said = smallest.replace('{type}"}', '{type}", fields: [t, humidity]}')
    (topic,) = load(config(said)).settings.topics
    assert topic.fields == ("t", "humidity")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{topic: a, fields: [[t]]}", "`fields` lists names of fields, such as [temperature, humidity]"),
        ('{topic: a, fields: [""]}', "`fields` lists names of fields, such as [temperature, humidity]"),
        ("{topic: a, format: number, fields: [t]}", "only payloads in JSON have fields"),
    ],
)
def test_what_payloads_cannot_hold_is_a_problem(problems_of, entry, problem):
    """At the place where it stands."""
    (line,) = problems_of(
        f"gateway: {{id: a}}\nmqtt: {{listen: 'mqtt://127.0.0.1:1883'}}\ningest: {{topics: [{entry}]}}\n"
    )
    assert problem in line
    assert line.startswith("3:")
