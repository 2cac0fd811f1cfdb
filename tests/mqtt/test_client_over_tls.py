"""TLS to a real mosquitto, with certificates made on the spot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway.config.settings import TlsSettings
from tests.mqtt.broker_process import Ingest, Mosquitto, Naps, ScriptedBroker, connected_client, until


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path, name: str) -> Path:
    openssl(
        folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
        "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    return folder / f"{name}.pem"


def make_certificate(folder: Path, authority: str, name: str, san: str, *, days: str = "2") -> tuple[Path, Path]:
    (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
    openssl(
        folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
    )  # fmt: skip
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
        "-CAcreateserial", "-days", days, "-extfile", f"{name}.ext", "-out", f"{name}.pem",
    )  # fmt: skip
    return folder / f"{name}.pem", folder / f"{name}.key"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    """An authority with a certificate for 127.0.0.1, one for elsewhere, one that has expired, and a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "authority")
    make_authority(folder, "stranger")
    make_certificate(folder, "authority", "here", "IP:127.0.0.1")
    make_certificate(folder, "authority", "elsewhere", "DNS:elsewhere.example")
    make_certificate(folder, "authority", "expired", "IP:127.0.0.1", days="-1")
    make_certificate(folder, "authority", "client", "DNS:gateway")
    for key in folder.glob("*.key"):
        key.chmod(0o644)
    return folder


@pytest.fixture
async def secured(tmp_path, certificates, request):
    """A mosquitto that speaks only TLS, with the certificate that the test names."""
    name, *more = getattr(request, "param", ("here",))
    listener = (f"certfile {certificates / name}.pem", f"keyfile {certificates / name}.key", *more)
    broker = Mosquitto(tmp_path, listener=tuple(line.format(folder=certificates) for line in listener))
    await broker.start()
    yield broker
    broker.stop()


async def test_messages_travel_over_tls_in_large_batches(secured, certificates):
    """What TLS has decrypted and the selector cannot see is read all the same."""
    ingest = Ingest()
    tls = TlsSettings(ca=certificates / "authority.pem")
    async with connected_client(secured.port, ingest, tls=tls, filters=("t/#", "loop/#")) as client:
        assert client.stats.protocol_version == 5
        payload = b"x" * 1_000
        for number in range(500):
            assert client.publish("loop/back", b"%d " % number + payload)
        await until(lambda: len(ingest.payloads) == 500, "everything comes back")
        await until(lambda: client.stats.published_total == 500, "everything is acknowledged")
    assert [int(payload.split()[0]) for payload in ingest.payloads] == list(range(500))


@pytest.mark.parametrize(
    ("secured", "ca", "word"),
    [
        pytest.param(("here",), "stranger", "certificate", id="unknown authority"),
        pytest.param(("elsewhere",), "authority", "IP address mismatch", id="wrong name"),
        pytest.param(("expired",), "authority", "expired", id="expired"),
    ],
    indirect=["secured"],
)
async def test_a_certificate_that_does_not_verify_is_refused_for_ever(secured, certificates, ca, word):
    """M17: never downgrades, retries slowly, says why."""
    naps = Naps()
    tls = TlsSettings(ca=certificates / f"{ca}.pem")
    async with connected_client(secured.port, Ingest(), tls=tls, sleep=naps, waits=False) as client:
        client.publish("t/secret", b"secret")
        await until(lambda: len(naps.asked) >= 3, "three refusals")
        assert word in client.stats.last_error
        assert client.stats.generation == 0
        assert all(pause_s >= 60.0 for pause_s in naps.asked)


async def test_with_tls_settings_nothing_is_ever_said_in_plain_text(certificates):
    """M17: to a broker without TLS the client says only what TLS says first."""
    heard = bytearray()

    async def script(peer):
        heard.extend(await peer.reader.read(3))
        peer.writer.write(b"\x20\x03\x00\x00\x00")

    naps = Naps()
    tls = TlsSettings(ca=certificates / "authority.pem")
    async with (
        ScriptedBroker(script) as broker,
        connected_client(broker.port, Ingest(), tls=tls, sleep=naps, waits=False) as client,
    ):
        await until(lambda: len(naps.asked) >= 2, "two failures")
        assert "TLS" in client.stats.last_error
        assert client.stats.generation == 0
    assert heard[:2] == b"\x16\x03", "a TLS handshake record"


@pytest.mark.parametrize(
    "secured", [("here", "require_certificate true", "cafile {folder}/authority.pem")], indirect=True
)
async def test_a_client_certificate_is_shown_where_the_broker_asks_for_one(secured, certificates):
    """Both sides prove who they are; without the certificate there is no session."""
    ca = certificates / "authority.pem"
    tls = TlsSettings(ca=ca, certificate=certificates / "client.pem", key=certificates / "client.key")
    async with connected_client(secured.port, Ingest(), tls=tls) as client:
        assert client.stats.connected
    naps = Naps(held=True)
    async with connected_client(secured.port, Ingest(), tls=TlsSettings(ca=ca), sleep=naps, waits=False) as client:
        await until(lambda: naps.asked, "the refusal")
        assert client.stats.generation == 0


async def test_a_missing_certificate_file_is_named_and_looked_for_again(tmp_path):
    """An operator must act, and need not restart the gateway afterwards."""
    naps = Naps()
    tls = TlsSettings(ca=tmp_path / "none.pem")
    async with connected_client(1, Ingest(), tls=tls, sleep=naps, waits=False) as client:
        await until(lambda: len(naps.asked) >= 2, "two tries")
        assert "TLS certificates" in client.stats.last_error
        assert min(naps.asked) >= 60.0
