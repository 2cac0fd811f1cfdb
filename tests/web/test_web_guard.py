"""Who may ask what over HTTP: the pure verdicts."""

import pytest

from gateway.web.guard import host_name, is_loopback, judge_change, judge_host, own_hosts

LOCAL = {"X-Gateway-Request": "1", "Host": "localhost:8080"}


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8080", "localhost"),
        ("[::1]:8080", "::1"),
        ("[::1]", "::1"),
        ("box.local.", "box.local"),
        ("[::1]x", ""),
        ("a:b", ""),
        ("a:99999", ""),
        ("a:²", ""),
    ],
)
def test_a_host_header_is_taken_apart(header, name):
    """Port, brackets and letter case do not matter; a malformed one names nobody."""
    assert host_name(header) == name


def test_the_address_of_the_connection_is_always_ours():
    """On a port that is open to the network, asking by address works: rebinding needs a name."""
    own = own_hosts("0.0.0.0", "Box")
    assert judge_host("192.168.1.5:8080", own, "192.168.1.5") is None
    assert judge_host("192.168.1.6:8080", own, "192.168.1.5").status == 421
    assert judge_host("0.0.0.0", own, "192.168.1.5").status == 421


def test_the_machine_s_name_counts_only_where_the_network_may_ask():
    """A loopback server answers to loopback names alone."""
    assert judge_host("box.local", own_hosts("0.0.0.0", "Box"), "") is None
    assert judge_host("box.local", own_hosts("127.0.0.1", "Box"), "").status == 421
    assert judge_host("gw.example", own_hosts("gw.example", "Box"), "") is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_this_machine(address):
    """Every spelling of this machine counts."""
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["192.168.1.5", "::ffff:10.0.0.1", "fe80::1%eth0", "", None, "localhost", "127"])
def test_nothing_else_is(address):
    """An address that is not certainly this machine's is another's."""
    assert not is_loopback(address)
    assert judge_change(LOCAL, "application/json", address).status == 403


def test_a_page_of_this_very_server_may_ask():
    """The page that this server sends is no foreigner."""
    headers = LOCAL | {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
    assert judge_change(headers, "application/json", "127.0.0.1") is None
    assert judge_change(headers | {"Origin": "http://localhost:9"}, "application/json", "127.0.0.1").status == 403
