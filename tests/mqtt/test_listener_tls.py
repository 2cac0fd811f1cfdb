"""TLS: encrypted for those who trust us, closed for everyone else."""

import asyncio
import ssl

import pytest

from gateway.config.settings import Permission, TlsSettings, User
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
    """[MQTT-4.2.0-1]: the same protocol, whatever the transport; a payload of many TLS records included."""
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


@pytest.fixture
async def authority(tmp_path):
    """A certificate authority: `await authority.sign(name)`, and a list of what it has revoked."""
    await openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", "/CN=authority", "-keyout", str(tmp_path / "ca.key"), "-out", str(tmp_path / "ca.pem")),
    )
    (tmp_path / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={tmp_path}/index\nserial={tmp_path}/serial\nnew_certs_dir={tmp_path}\n"
        f"certificate={tmp_path}/ca.pem\nprivate_key={tmp_path}/ca.key\ndefault_md=sha256\ndefault_days=2\n"
        "default_crl_days=2\npolicy=any\nunique_subject=no\n[any]\ncommonName=optional\n"
    )
    (tmp_path / "index").touch()
    (tmp_path / "serial").write_text("01\n")

    class Authority:
        path = tmp_path / "ca.pem"
        crl = tmp_path / "crl.pem"

        async def sign(self, name: str) -> tuple[str, str]:
            key, request, signed = (str(tmp_path / f"{name}.{kind}") for kind in ("key", "csr", "crt"))
            await openssl(
                *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
                *("-keyout", key, "-out", request),
            )
            await self._ca("-in", request, "-out", signed, "-notext")
            return signed, key

        async def revoke(self, signed: str) -> None:
            await self._ca("-revoke", signed)
            await self._ca("-gencrl", "-out", str(self.crl))

        async def _ca(self, *arguments: str) -> None:
            await openssl("ca", "-batch", "-config", str(tmp_path / "ca.cnf"), *arguments)

    return Authority()


async def test_a_certificate_is_a_name_a_permission_can_ask_for(open_listener, certificate, authority, wire):
    """`{device}` is the common name; a password is not asked for, and a claimed user name does not count."""
    tls = TlsSettings(certificate=certificate.certificate, key=certificate.key, ca=authority.path)
    mine = Permission(publish=("d/{device}/#",))
    bench = await open_listener(tls=tls, users=(User(username="x", password="y"),), permissions=(mine,))
    context = trusting(certificate)
    context.load_cert_chain(*await authority.sign("heater-1"))
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port, ssl=context)
    writer.write(wire.connect("c", v5=True, username="admin", properties=b"\x17\0"))
    writer.write(wire.publish("d/heater-1/t", qos=1, mid=1, v5=True) + wire.publish("d/x/t", qos=1, mid=2, v5=True))
    answer = b""
    while not answer.endswith(b"\x40\2\0\1\x40\3\0\2\x87"):
        answer += await asyncio.wait_for(reader.read(1_000), PATIENCE_S)
    writer.transport.abort()
    assert [topic for topic, _, _ in bench.desk.messages] == ["d/heater-1/t"]


async def test_where_certificates_are_optional_a_password_does_as_well(open_listener, certificate, authority, wire):
    """But one of the two it must be."""
    tls = TlsSettings(
        certificate=certificate.certificate, key=certificate.key, ca=authority.path, are_clients_certified=False
    )
    bench = await open_listener(tls=tls, users=(User(username="x", password="y"),))

    async def connack(context, **how) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port, ssl=context)
        writer.write(wire.connect("c", **how))
        answer = await asyncio.wait_for(reader.readexactly(4), PATIENCE_S)
        writer.transport.abort()
        return answer[3:]

    bare, certified = trusting(certificate), trusting(certificate)
    certified.load_cert_chain(*await authority.sign("heater-1"))
    assert await connack(bare) == b"\5"
    assert await connack(bare, username="x", password="y") == b"\0"
    assert await connack(certified) == b"\0"


async def test_a_revoked_certificate_is_worth_nothing(open_listener, certificate, authority, wire):
    """A lost device does not get in, and the others do."""
    lost, kept = await authority.sign("lost"), await authority.sign("kept")
    await authority.revoke(lost[0])
    tls = TlsSettings(certificate=certificate.certificate, key=certificate.key, ca=authority.path, crl=authority.crl)
    bench = await open_listener(tls=tls)
    with_lost, with_kept = trusting(certificate), trusting(certificate)
    with_lost.load_cert_chain(*lost)
    with_kept.load_cert_chain(*kept)
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await greet(bench, wire, with_lost)
    assert (await greet(bench, wire, with_kept))[:1] == b"\x20"
