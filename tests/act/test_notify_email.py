"""Mail over real SMTP servers: with TLS and without, that refuse some, refuse all, hang up, or do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import random
import shutil
import ssl
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from structlog.testing import capture_logs

from gateway.act.notify import TRIES, Notifier
from gateway.config.settings import Credentials, EmailSettings
from gateway.model import Decision, Notify

LOGIN = Credentials(username="greenhouse", password="hush")


class NoPause(random.Random):
    """Draws no pause, so that a retry follows at once."""

    def random(self) -> float:
        return 0.0


class Mailbox:
    """What a server took, and what it was told to answer."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], object]] = []
        self.refuse: dict[str, list[str]] = {}
        """Answers to RCPT for an address, each given once, the last one for ever."""
        self.answers: list[str] = []
        """Answers to DATA, each given once; then it takes them."""
        self.logins: list[tuple[bytes, bytes]] = []
        self.was_secure: list[bool] = []

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        answers = self.refuse.get(address, [])
        answer = (answers.pop(0) if len(answers) > 1 else answers[0]) if answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server, session, envelope) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            self.was_secure.append(server.transport.get_extra_info("sslcontext") is not None)
            mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
            self.taken.append((list(envelope.rcpt_tos), mail))
        return answer

    def authenticate(self, server, session, envelope, mechanism, data) -> AuthResult:
        self.logins.append((data.login, data.password))
        is_right = (data.login, data.password) == (b"greenhouse", b"hush")
        return AuthResult(success=is_right, handled=False)  # the server itself says no


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Certificate and key of 127.0.0.1 in one file, signed by itself."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "these tests need openssl: apt-get install openssl"
    path = tmp_path_factory.mktemp("mail") / "mail.pem"
    names = ["-subj", "/CN=mail", "-addext", "subjectAltName=IP:127.0.0.1"]
    uses = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        [openssl, *new, *names, *uses, "-keyout", str(path), "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextlib.asynccontextmanager
async def serving(mailbox: Mailbox, *, secret: Path | None = None, at_once: bool = False, **options):
    """A server on a free port; `secret` is its certificate, `at_once` whether it begins with TLS."""
    tls = None
    if secret is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(secret)
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        context = tls if not at_once else None
        with warnings.catch_warnings(action="ignore"):  # it warns of what these tests are about: passwords without TLS
            return SMTP(mailbox, hostname="mail.example.org", loop=loop, tls_context=context, **options)

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if at_once else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def running(notifier: Notifier):
    """Let it work, and stop it as the gateway does."""
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def receiver(port: int, **changes) -> EmailSettings:
    """Somebody on call, told as soon as there is something to say."""
    plain = EmailSettings(
        name="oncall",
        host="127.0.0.1",
        port=port,
        security="none",
        sender="greenhouse@example.org",
        recipients=("a@example.org",),
        group_s=0.0,
        subject="greenhouse-01: {text}",
    )
    return replace(plain, **changes)


def say(notifier: Notifier, *texts: str) -> None:
    for text in texts:
        message = Notify("oncall", text)
        notifier.notify(Decision(f"warm/shed/7/{text}", "warm", "shed", message, 0, None, "it is warm"), message)


async def settled(settings: EmailSettings, clock=None) -> tuple[Notifier, list[str]]:
    """Say one thing until it is told or given up. Returns why it failed, as the log has it."""
    notifier = Notifier([settings], NoPause(), clock)
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "shed is at 31.5 °C")
            await until(lambda: notifier.told + notifier.failed)
    assert "hush" not in str(lines)
    assert "example.org" not in str(lines)
    return notifier, [line["why"] for line in lines if line["event"] == "notification_failed"]


async def test_a_mail_says_what_happened_and_why(mailbox, clock):
    """Sender, addresses, subject, date and text, as a reader of mail shows them."""
    async with serving(mailbox) as port:
        notifier, _ = await settled(receiver(port, recipients=("a@example.org", "b@example.org")), clock)
    assert (notifier.told, notifier.failed) == (1, 0)
    ((addresses, mail),) = mailbox.taken
    assert addresses == ["a@example.org", "b@example.org"]
    assert (mail["From"], mail["To"]) == ("greenhouse@example.org", "a@example.org, b@example.org")
    assert mail["Subject"] == "greenhouse-01: shed is at 31.5 °C"
    assert mail["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert mail.get_content().splitlines() == ["shed is at 31.5 °C", "because it is warm", "rule warm (shed)"]


async def test_a_clock_that_nobody_has_set_dates_no_mail(mailbox, clock):
    """A mail from 1970 is one that nobody finds: the server that takes it puts its own date."""
    clock.is_synced = False
    async with serving(mailbox) as port:
        await settled(receiver(port), clock)
    assert mailbox.taken[0][1]["Date"] is None


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_credentials_travel_under_tls_and_the_server_is_checked(mailbox, certificate, security):
    """Both ways to TLS; whom the trust anchors do not vouch for gets neither password nor mail."""
    options = {"at_once": True} if security == "tls" else {"require_starttls": True}
    async with serving(
        mailbox,
        secret=certificate,
        auth_required=True,
        auth_require_tls=security == "starttls",  # which else is what it can know of
        authenticator=mailbox.authenticate,
        **options,
    ) as port:
        settings = receiver(port, security=security, credentials=LOGIN)
        strange, why = await settled(settings)
        assert (strange.failed, why) == (1, ["SSLCertVerificationError"])
        assert mailbox.logins == []
        trusted, _ = await settled(replace(settings, ca=certificate))
    assert trusted.told == 1
    assert mailbox.logins == [(b"greenhouse", b"hush")]
    assert mailbox.was_secure == [True]


async def test_a_server_that_offers_no_tls_gets_neither_password_nor_mail(mailbox):
    """`starttls` is not a wish: who strips the offer from the connection reads nothing."""
    async with serving(mailbox, auth_require_tls=False, authenticator=mailbox.authenticate) as port:
        notifier, why = await settled(receiver(port, security="starttls", credentials=LOGIN))
    assert (notifier.failed, why) == (1, ["SMTPException"])
    assert mailbox.logins == mailbox.taken == []


async def test_a_wrong_password_is_told_at_once_and_never_repeated(mailbox):
    """Servers lock out whoever tries again and again."""
    async with serving(mailbox, auth_required=True, auth_require_tls=False, authenticator=mailbox.authenticate) as port:
        wrong = Credentials(username="greenhouse", password="hush-hush")
        notifier, why = await settled(receiver(port, credentials=wrong))
    assert (notifier.failed, why) == (1, ["SMTP 535"])
    assert len(mailbox.logins) <= 3, "once by each way to log in that the server offers"


@pytest.mark.parametrize(("answer", "tries"), [("554 no", 1), ("552 full", 1), ("451 later", TRIES)])
async def test_what_will_never_be_taken_is_not_sent_again(mailbox, answer, tries):
    """5xx is for good, 4xx for now; both are bounded and told with their code alone."""
    mailbox.answers = [f"{answer}: hush"] * 20
    async with serving(mailbox) as port:
        notifier, why = await settled(receiver(port))
    assert (notifier.failed, why) == (1, [f"SMTP {answer[:3]}"])
    assert len(mailbox.answers) == 20 - tries


async def test_each_address_is_told_once_whatever_becomes_of_the_others(mailbox):
    """One is refused for good, one put off once, one taken: two get a mail each, the log tells of the third."""
    mailbox.refuse = {"b@example.org": ["450 later", "250 OK"], "c@example.org": ["550 nobody"]}
    async with serving(mailbox) as port:
        people = ("a@example.org", "b@example.org", "c@example.org")
        notifier, why = await settled(receiver(port, recipients=people))
    assert [addresses for addresses, _ in mailbox.taken] == [["a@example.org"], ["b@example.org"]]
    assert mailbox.taken[0][1]["Message-ID"] == mailbox.taken[1][1]["Message-ID"]
    assert (notifier.told, notifier.failed, why) == (1, 0, ["1 of 3 addresses: SMTP 550"])


@pytest.mark.parametrize(("answer", "why"), [("550 nobody", "SMTP 550"), ("450 later", "SMTP 450")])
async def test_a_mail_that_every_address_refuses_is_given_up(mailbox, answer, why):
    """For good at once, for now after all tries."""
    mailbox.refuse = {address: [answer] for address in ("a@example.org", "b@example.org")}
    async with serving(mailbox) as port:
        notifier, told = await settled(receiver(port, recipients=("a@example.org", "b@example.org")))
    assert (notifier.failed, told) == (1, [f"2 of 2 addresses: {why}"])
    assert not mailbox.taken


async def test_a_server_that_hangs_up_after_taking_a_mail_gets_no_second_one(mailbox, monkeypatch):
    """Its word counts, not its manners."""

    async def hang_up(self, arg) -> None:
        self.transport.abort()

    monkeypatch.setattr(SMTP, "smtp_QUIT", hang_up)
    async with serving(mailbox) as port:
        notifier, why = await settled(receiver(port))
    assert (notifier.told, why) == (1, [])
    assert len(mailbox.taken) == 1


async def test_a_server_that_is_away_is_told_of_without_its_address(unused_tcp_port):
    """After all tries; nothing is raised, and the next one gets its turn."""
    notifier, (why,) = await settled(receiver(unused_tcp_port))
    assert notifier.failed == 1
    assert why == "ConnectionRefusedError"


async def test_several_go_out_as_one_mail(mailbox, clock):
    """What is said within ten seconds of the first is one mail; what comes later waits for the next."""
    async with serving(mailbox) as port:
        notifier = Notifier([receiver(port, group_s=10.0)], NoPause(), clock)
        async with running(notifier):
            say(notifier, "one", "two")
            clock.advance(10)
            say(notifier, "three")
            await until(lambda: notifier.told == 3)
            say(notifier, "four")
            assert notifier.waiting == 1
            clock.advance(10)
            say(notifier, "five")
            await until(lambda: notifier.told == 5)
    first, second = (mail for _, mail in mailbox.taken)
    assert first["Subject"] == "greenhouse-01: 3 messages: one"
    assert second["Subject"] == "greenhouse-01: 2 messages: four"
    assert [line for line in first.get_content().splitlines() if line.startswith("- ")] == ["- one", "- two", "- three"]


async def test_stopping_does_not_wait_for_a_mail_server_that_is_silent():
    """Cancelling ends a try that hangs, with no warning from anybody, and counts what it was about."""
    connected = asyncio.Event()
    held = asyncio.Event()

    async def silent(reader, writer) -> None:
        connected.set()
        await held.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    notifier = Notifier([receiver(server.sockets[0].getsockname()[1])], NoPause())
    with capture_logs() as lines:
        async with running(notifier):
            say(notifier, "one", "two")
            await connected.wait()
    held.set()
    server.close()
    await server.wait_closed()
    assert (notifier.told, notifier.dropped, notifier.waiting) == (0, 2, 0)
    assert lines[-1]["why"] == "the gateway stops before 2 could be told"
