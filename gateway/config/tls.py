"""The `tls:` part beside an address: certificates that are there, readable, and fit together.

Checked by loading them, so that a wrong path, the key of another certificate or an encrypted key is a problem with a
place, before anything has started, and not a handshake that fails at night.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.settings import TlsSettings
from gateway.config.values import cut_path

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config.document import Mark
    from gateway.config.section import Section
    from gateway.config.values import Context


def read_tls(
    context: Context, section: Section, *, wanted: bool, is_server: bool, mark: Mark, secure: str = "mqtts"
) -> TlsSettings | None:
    """Read `tls:`.

    Args:
        context: see `Context`.
        section: the mapping that may hold `tls`.
        wanted: whether the address says so (`mqtts://`).
        is_server: whether the address is listened on: a certificate is then needed.
        mark: the place of the address.
        secure: the scheme that says so.
    """
    below = section.section("tls")
    if below is None:
        if wanted and is_server:
            section.problems.add(mark, f"{secure}:// needs `tls` with `certificate` and `key`")
        return TlsSettings() if wanted else None
    if not wanted:
        section.problems.add(below.mark, f"`tls` is set, but the address is not {secure}://")
    clients = below.choice("clients", ("required", "optional"), "required") if is_server else None
    tls = TlsSettings(
        ca=context.file(below, "ca"),
        certificate=context.file(below, "certificate"),
        key=context.file(below, "key", is_secret=True),
        crl=context.file(below, "crl") if is_server else None,
        are_clients_certified=clients != "optional",
    )
    if tls.ca is None and not below.has("ca"):
        for key in ("crl", "clients"):
            if is_server and below.has(key):
                section.problems.add(below.at(key), f"`{key}` is about certificates of clients, which need `ca`")
    if not below.has("certificate") and (is_server or below.has("key")):
        section.problems.add(below.mark, "`certificate` is missing")
    below.done()
    if tls.ca is not None:
        _check_anchors(tls.ca, below)
    if tls.crl is not None and b"-----BEGIN X509 CRL-----" not in tls.crl.read_bytes():
        below.problems.add(below.at("crl"), f"{cut_path(tls.crl)} holds no list of revoked certificates (PEM)")
    if tls.certificate is not None and (tls.key is not None or not below.has("key")):
        _check_pair(tls.certificate, tls.key, below)
    return tls


def _check_anchors(path: Path, section: Section) -> None:
    import ssl  # noqa: PLC0415 - costs 10 ms at the start, and only TLS needs it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        section.problems.add(section.at("ca"), f"{cut_path(path)} holds no certificate (PEM)")


def _check_pair(certificate: Path, key: Path | None, section: Section) -> None:
    import ssl  # noqa: PLC0415 - as above

    is_encrypted = False

    def ask() -> str:
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, ask)
    except ssl.SSLError as error:
        section.problems.add(
            section.at("key" if key is not None else "certificate"), _pair_problem(error, is_encrypted)
        )
    except OSError as error:
        section.problems.add(
            section.at("certificate"), f"{cut_path(certificate)}: {error.strerror or 'cannot be read'}"
        )


def _pair_problem(error: Exception, is_encrypted: bool) -> str:  # noqa: FBT001 - one caller, beside it
    if is_encrypted:
        return "the key is encrypted, and nobody will be there to type its password; store it decrypted"
    if "KEY_VALUES_MISMATCH" in str(error):
        return "the key belongs to another certificate"
    return "certificate and key are not both PEM"
