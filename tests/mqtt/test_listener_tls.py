"""TLS: encrypted for those who trust us, closed for everyone else."""

import asyncio
import ssl

import pytest

from gateway.config.settings import TlsSettings
from gateway.errors import GatewayError

PATIENCE_S = 10


async def openssl(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("openssl", *arguments, stderr=asyncio.subprocess.PIPE)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err


@pytest.fixture
async def certificate(tmp_path):
    """A certificate of our own making for 127.0.0.1."""
    await openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", "/CN=gateway"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key.pem")),
        *("-out", str(tmp_path / "cert.pem")),
    )
    return TlsSettings(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")


def trusting(tls) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(tls.certificate))


async def greet(bench, wire, context) -> bytes:
    """Connect over TLS and exchange hellos."""
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port, ssl=context)
    try:
        writer.write(wire.connect("dev") + wire.publish("a", bytes(100_000), qos=1, mid=3))
        return await asyncio.wait_for(reader.readexactly(8), PATIENCE_S)
    finally:
        writer.transport.abort()


async def test_a_device_that_trusts_us_is_served_over_tls(open_listener, certificate, wire):
    """The same protocol, whatever the transport; a payload of many TLS records included."""
    bench = await open_listener(tls=certificate)
    assert await greet(bench, wire, trusting(certificate)) == b"\x20\x02\0\0\x40\x02\0\3"
    assert [len(payload) for _, payload, _ in bench.desk.messages] == [100_000]


async def test_mosquitto_pub_over_tls(open_listener, certificate):
    """A real client with a CA file."""
    bench = await open_listener(tls=certificate)
    process = await asyncio.create_subprocess_exec(
        *("mosquitto_pub", "-h", "127.0.0.1", "-p", str(bench.listener.port), "--cafile", str(certificate.certificate)),
        *("-q", "1", "-t", "a", "-m", "secret"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err
    assert bench.desk.messages == [("a", b"secret", 1)]


async def test_nothing_below_tls_1_2_is_spoken(open_listener, certificate, wire):
    """And plain text on the port gets nowhere, while everyone else goes on."""
    bench = await open_listener(tls=certificate)
    old = trusting(certificate)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await greet(bench, wire, old)
    plain = await bench.socket()
    plain.send(wire.connect("dev"))
    assert not (await plain.closed()).startswith(b"\x20")
    assert (await greet(bench, wire, trusting(certificate)))[:1] == b"\x20"


async def test_with_trust_anchors_only_devices_with_a_certificate_are_let_in(open_listener, certificate, wire):
    """`ca` on a listener means: show yours."""
    anchored = TlsSettings(certificate=certificate.certificate, key=certificate.key, ca=certificate.certificate)
    bench = await open_listener(tls=anchored)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await greet(bench, wire, trusting(certificate))
    with_own = trusting(certificate)
    with_own.load_cert_chain(certificate.certificate, certificate.key)
    assert (await greet(bench, wire, with_own))[:1] == b"\x20"


async def test_a_certificate_that_cannot_be_used_is_told_at_the_start(open_listener, certificate, tmp_path):
    """Not when the first device calls."""
    with pytest.raises(GatewayError, match="cannot listen"):
        await open_listener(tls=TlsSettings(certificate=tmp_path / "nothing.pem"))
    with pytest.raises(GatewayError, match="certificate"):
        await open_listener(tls=TlsSettings())
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(GatewayError, match="cannot listen"):
        await open_listener(tls=certificate)
