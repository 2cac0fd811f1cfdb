"""`gateway.config.notify`: receivers of every type, and each way to get one wrong with its place."""

import random

import pytest

from gateway.config.loader import load
from gateway.config.settings import Credentials, EmailSettings, NtfySettings, WebhookSettings
from gateway.errors import ConfigError

MAIL = "name: m, type: email, host: mail.example.org, from: g@example.org, to: a@example.org"
PHONE = "name: p, type: ntfy, url: https://ntfy.example/greenhouse"
PASSWORD = 'username: u, password: "${PASSWORD}"'


@pytest.fixture
def receiver_of(config, smallest, monkeypatch):
    """The one receiver of a configuration, and the warnings that came with it."""
    monkeypatch.setenv("PASSWORD", "hush")

    def read(entry: str):
        loaded = load(config(f"{smallest}notify: [{{{entry}}}]\n"))
        (receiver,) = loaded.settings.notify
        return receiver, [warning.partition(".yaml:")[2] for warning in loaded.warnings]

    return read


def test_a_receiver_of_each_type_has_its_defaults(receiver_of):
    """The least that can be written, and what it means."""
    assert receiver_of("name: w") == (WebhookSettings(name="w"), [])
    assert receiver_of("name: w, webhook: 'https://h/x?y'") == (WebhookSettings(name="w", url="https://h/x?y"), [])
    assert receiver_of(MAIL) == (
        EmailSettings(
            name="m",
            host="mail.example.org",
            port=587,
            security="starttls",
            sender="g@example.org",
            recipients=("a@example.org",),
            subject="greenhouse-01: {text}",
        ),
        [],
    )
    assert receiver_of(PHONE) == (
        NtfySettings(name="p", server="https://ntfy.example/", topic="greenhouse", title="greenhouse-01: {rule}"),
        [],
    )


def test_every_key_arrives_in_its_setting(receiver_of, certificates):
    """Nothing that can be written is ignored, nothing is mixed up."""
    assert receiver_of("name: w, type: webhook, webhook: http://h, most: 2, every: 3s, group: 4m")[
        0
    ] == WebhookSettings(name="w", url="http://h", most=2, every_s=3.0, group_s=240.0)
    mail = (
        f"name: m, type: email, host: '[::1]', port: 7, tls: tls, ca: {certificates}/a.crt, {PASSWORD}, from: g@h, "
        'to: [a@b, "c+d@e.f"], subject: "[{gateway}] {count} {rule} {key}", most: 2, every: 3s, group: 0s'
    )
    assert receiver_of(mail) == (
        EmailSettings(
            name="m",
            host="::1",
            port=7,
            security="tls",
            ca=certificates / "a.crt",
            credentials=Credentials(username="u", password="hush"),
            sender="g@h",
            recipients=("a@b", "c+d@e.f"),
            subject="[greenhouse-01] {count} {rule} {key}",
            most=2,
            every_s=3.0,
            group_s=0.0,
        ),
        [],
    )
    phone = (
        'name: p, type: ntfy, url: "https://h:8/t_1", token: "${PASSWORD}", priority: urgent, title: "{text}", '
        "most: 2, every: 3s, group: 4s"
    )
    assert receiver_of(phone) == (
        NtfySettings(
            name="p",
            server="https://h:8/",
            topic="t_1",
            token="hush",
            priority=5,
            title="{text}",
            most=2,
            every_s=3.0,
            group_s=4.0,
        ),
        [],
    )


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_the_port_follows_from_how_tls_is_spoken(receiver_of, tls, port):
    """Three ways, three well-known ports."""
    receiver, _ = receiver_of(f"{MAIL}, tls: {tls}")
    assert (receiver.security, receiver.port) == (tls, port)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "'[::1]'", "'::1'"])
def test_a_password_without_tls_stays_on_this_machine(receiver_of, host):
    """A relay beside the gateway may ask for one."""
    receiver, _ = receiver_of(f"{MAIL}, tls: none, {PASSWORD}".replace("mail.example.org", host))
    assert receiver.credentials == Credentials(username="u", password="hush")


@pytest.mark.parametrize(
    "host", ["mail.example.org", "192.168.0.7", "127.example.org", "localhost.example.org", "'::2'"]
)
def test_a_password_never_goes_out_in_the_clear(config, smallest, monkeypatch, host):
    """Not even where a name looks like this machine."""
    monkeypatch.setenv("PASSWORD", "hush")
    mail = f"{MAIL}, tls: none, {PASSWORD}".replace("mail.example.org", host)
    with pytest.raises(ConfigError) as refused:
        load(config(f"{smallest}notify: [{{{mail}}}]\n"))
    (problem,) = refused.value.problems
    assert "the password would go out in the clear" in problem
    assert "hush" not in problem


def test_a_token_over_http_is_a_warning_but_on_this_machine(receiver_of):
    """It works in a house, and should not stay so."""
    phone = 'name: p, type: ntfy, token: "${PASSWORD}", url: http://%s/t'
    assert receiver_of(phone % "ntfy.example")[1] == ["4:59: the token goes out in the clear; better: https://"]
    assert receiver_of(phone % "127.0.0.1")[1] == []


def test_a_password_in_the_file_is_a_warning(receiver_of):
    """As for every other secret."""
    _, (warning,) = receiver_of(f"{MAIL}, username: u, password: hush")
    assert "`password` stands in the file" in warning
    _, (warning,) = receiver_of(f"{PHONE}, token: hush")
    assert "`token` stands in the file" in warning
    assert "hush" not in warning


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("name: w, type: ^mail", "`type` is one of webhook, email, ntfy, not `mail`; did you mean `email`?"),
        ("name: w, type: ^~", "`type` is one of webhook, email, ntfy, not nothing"),
        ("type: webhook", "`name` is missing"),
        ("name: ^'a b'", "`name: a b` must match [A-Za-z0-9_-]{1,64}"),
        ("name: ^5", '`name` is a text; quote it: "5"'),
        ("name: w, ^webhok: http://h", "unknown key `webhok`; did you mean `webhook`?"),
        ("name: w, ^port: 5", "unknown key `port`; known here: every, group, most, name, type, webhook"),
        ("name: w, every: ^0s", "`every` is at least 1s and at most 1d, not 0s"),
        ("name: w, every: ^60", "`every`: a duration needs a unit: 60s or 60m?"),
        ("name: w, most: ^0", "`most` is at least 1 and at most 1000, not 0"),
        ("name: w, group: ^2h", "`group` is at least 0s and at most 1h, not 2h"),
        ("name: m, type: email, from: g@h, to: a@b", "`host` is missing"),
        ("name: m, type: email, host: h, to: a@b", "`from` is missing"),
        ("name: m, type: email, host: h, from: g@h", "`to` is missing"),
        ("name: m, type: email, host: h, from: g@h, to: ^[]", "`to` is empty: nobody would be told"),
        (
            "name: m, type: email, host: h, from: g@h, to: [^5]",
            "an address is expected, such as oncall@example.org",
        ),
        ("name: m, type: email, host: h, from: g@h, to: [a@b, ^a@b]", "`a@b` stands twice"),
        (
            "name: m, type: email, host: ^'smtp://h:5', from: g@h, to: a@b",
            "`smtp://h:5` is not a host; write mail.example.org, and the port beside",
        ),
        (f"{MAIL}, port: ^0", "`port` is at least 1 and at most 65535, not 0"),
        (f"{MAIL}, tls: ^yes", "`tls` is one of starttls, tls, none, not `yes`"),
        (f"{MAIL}, password_file: ^pw", "`password_file` without `username`"),
        (f"{MAIL}, tls: none, ca: ^{{certificates}}/a.crt", "`ca` is set, but `tls: none`"),
        (f"{MAIL}, ca: ^pw", "{here}/pw holds no certificate (PEM)"),
        (f"{MAIL}, subject: ^'{{rul}}'", "`subject` knows no {rul}; did you mean `rule`?"),
        (f"{MAIL}, subject: ^'{{0.x}}'", "`subject` knows no {0.x}; known here: count, gateway, key, rule, text"),
        (f'{MAIL}, subject: ^"a\\r\\nBcc: x@y"', "`subject` is one line without control characters"),
        (f"{PHONE}, priority: ^9", "`priority` is one of min, low, default, high, urgent, not `9`"),
        ("name: p, type: ntfy", "`url` is missing"),
        (
            "name: p, type: ntfy, url: ^https://h",
            "`https://h` names no topic; write https://ntfy.example/TOPIC (A-Z a-z 0-9 _ -)",
        ),
        (
            "name: p, type: ntfy, url: ^'https://u:hush@h/t'",
            "`https://***@h/t`: no user stands in this address; use `token` or `headers`",
        ),
    ],
)
def test_a_fault_is_told_once_with_its_place(problems_of, smallest, tmp_path, certificates, entry, problem):
    """One fault is one line that says what to write instead. `^` stands before its place, else it is the entry's."""
    (tmp_path / "pw").write_text("hush\n")
    (tmp_path / "pw").chmod(0o600)
    entry = entry.replace("{certificates}", str(certificates))
    column = max(len("notify: ["), len("notify: [{") + entry.find("^")) + 1
    told = problems_of(f"{smallest}notify: [{{{entry.replace('^', '')}}}]\n")
    assert told == [f"4:{column}: {problem}".replace("{here}", str(tmp_path.resolve()))]


@pytest.mark.parametrize("path", ["", "/", "/a/b", "/a?b=1", "/a#b", "/a b", "//a", "/" + "a" * 65])
def test_a_topic_is_one_level_of_an_address(problems_of, smallest, path):
    """Everything else would be published somewhere else than was meant."""
    (problem,) = problems_of(f"{smallest}notify: [{{name: p, type: ntfy, url: 'https://h{path}'}}]\n")
    assert problem.startswith("4:37: ")


@pytest.mark.parametrize(
    "address",
    ["a", "@b", "a@", "a@b@c", "a b@c", "A <a@b>", "a@b, c@d", "a@b>c", "ä@b", '"a\\r\\nBcc: x@y"', "a@" + "b" * 254],
)
@pytest.mark.parametrize("key", ["from", "to"])
def test_an_address_is_one_address_and_nothing_else(problems_of, smallest, key, address):
    """No name, no list, no line end: whatever could become a header of its own."""
    other = "to: a@b" if key == "from" else "from: a@b"
    quoted = address if address.startswith('"') else f'"{address}"'
    entry = f"name: m, type: email, host: h, {other}, {key}: {quoted}"
    (problem,) = problems_of(f"{smallest}notify: [{{{entry}}}]\n")
    assert problem.endswith("is not an address such as oncall@example.org")


def test_more_addresses_than_a_server_would_take_are_a_mailing_list(problems_of, smallest):
    """Most servers take a hundred; nobody is told if they refuse."""
    people = ", ".join(f"a{number}@b" for number in range(51))
    (problem,) = problems_of(f"{smallest}notify: [{{name: m, type: email, host: h, from: g@h, to: [{people}]}}]\n")
    assert problem == "4:57: more than 50 addresses; write to a mailing list"


def test_a_name_stands_once_whatever_the_types(problems_of, smallest):
    """Rules name one receiver."""
    assert problems_of(f"{smallest}notify: [{{name: p}}, {{{PHONE}}}]\n") == ["4:28: a receiver named `p` stands twice"]


def test_mail_without_its_library_is_told_before_anything_starts(problems_of, smallest, monkeypatch):
    """Not at night, when the first alarm is due."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (problem,) = problems_of(f"{smallest}notify: [{{{MAIL}}}]\n")
    assert problem == "4:26: e-mail needs aiosmtplib: pip install 'edge-event-gateway[email]'"


def test_no_secret_is_in_a_repr(receiver_of):
    """Settings end in tracebacks."""
    for entry in (f"{MAIL}, {PASSWORD}", f'{PHONE}, token: "${{PASSWORD}}"', "name: w, webhook: 'https://h/hush'"):
        receiver, _ = receiver_of(entry)
        assert "hush" not in repr(receiver)
    assert "greenhouse'" not in repr(receiver_of(PHONE)[0])


@pytest.mark.parametrize("_round", range(2))
def test_no_mixture_of_words_is_too_strange(config, smallest, seed, _round):
    """Any key with any value: receivers, or problems. Nothing else is raised."""
    dice = random.Random(f"{seed}{_round}")
    keys = (
        "name type webhook url token token_file priority title host port tls ca username password password_file from to"
    )
    keys = [*keys.split(), "subject", "every", "most", "group", "x"]
    words = [
        "a",
        "email",
        "ntfy",
        "webhook",
        "https://h/t",
        "http://[",
        "a@b",
        "[a@b,5,{}]",
        "{}",
        "[]",
        "~",
        "5",
        "-1",
        ".nan",
        "5m",
        "0s",
        "true",
        "none",
        "tls",
    ]
    words = [*words, '"{rule}"', '"{"', '"${HOME}"', '"\\0"', "/dev/null", "../x", '""', '"::1"']
    for _ in range(300):
        entries = []
        for _ in range(dice.randint(0, 3)):
            chosen = {"name": "a", "type": dice.choice(["email", "ntfy", "webhook"])}
            chosen.update((key, dice.choice(words)) for key in dice.sample(keys, dice.randint(0, 9)))
            entries.append("{" + ", ".join(f"{key}: {value}" for key, value in chosen.items()) + "}")
        problems = []
        try:
            load(config(f"{smallest}notify: [{', '.join(entries)}]\n"))
        except ConfigError as error:
            problems = error.problems or ["an error without a problem\0"]
        assert all(line.isprintable() for line in problems)
