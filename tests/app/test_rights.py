"""Who may read and who may change the session's state."""

import pytest

from app.rights import RateLimit, Rights

OPERATOR = "o" * 32
VIEWER = "v" * 32


@pytest.fixture
def rights():
    return Rights(8765, OPERATOR)


@pytest.fixture
def remote():
    return Rights(8765, OPERATOR, VIEWER, host="192.0.2.7", is_tls=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"]
)
def test_loopback_names_with_our_port_are_known(rights, host):
    assert rights.knows_host(host)


@pytest.mark.parametrize(
    "host",
    [
        None, "", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:87650", "evil.example:8765",
        "localhost.evil.example:8765", "127.0.0.1:8765@evil.example", "192.0.2.7:8765",
        "127.0.0.1:8765 ", "0.0.0.0:8765",
    ],
)  # fmt: skip
def test_other_names_are_foreign_on_loopback(rights, host):
    assert not rights.knows_host(host)


def test_the_default_port_may_be_left_out():
    assert Rights(80, OPERATOR).knows_host("localhost")
    assert Rights(443, OPERATOR, VIEWER, is_tls=True).knows_host("localhost")
    assert not Rights(443, OPERATOR).knows_host("localhost")


def test_a_server_on_all_addresses_is_named_by_the_machine(monkeypatch):
    monkeypatch.setattr("app.rights.socket.gethostname", lambda: "stage")
    assert Rights(8765, OPERATOR, VIEWER, "0.0.0.0", True).address == "https://stage:8765/"


def test_beyond_loopback_numbers_and_our_own_name_are_known(remote, monkeypatch):
    monkeypatch.setattr("app.rights.socket.gethostname", lambda: "Stage")
    for host in ("192.0.2.7:8765", "198.51.100.1:8765", "[2001:db8::1]:8765", "stage:8765"):
        assert remote.knows_host(host), host
    for host in ("evil.example:8765", "198.51.100.1:80", "198.51.100.1", "1.2.3.4.example:8765"):
        assert not remote.knows_host(host), host


def test_an_origin_is_known_only_under_the_name_it_was_asked_by(rights):
    assert rights.knows_origin("http://127.0.0.1:8765", "127.0.0.1:8765")
    assert rights.knows_origin("http://LOCALHOST:8765", "localhost:8765")
    assert not rights.knows_origin("http://localhost:8765", "127.0.0.1:8765")


@pytest.mark.parametrize(
    "origin",
    [
        None, "", "null", "http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1",
        "http://127.0.0.1:8766", "http://127.0.0.1:8765.evil.example", "http://127.0.0.1:8765/",
        "ws://127.0.0.1:8765", "file://",
    ],
)  # fmt: skip
def test_other_origins_are_foreign(rights, origin):
    assert not rights.knows_origin(origin, "127.0.0.1:8765")


def test_an_origin_of_a_foreign_host_is_foreign_though_both_agree(rights):
    assert not rights.knows_origin("http://evil.example:8765", "evil.example:8765")


@pytest.mark.parametrize("token", [None, 7, "", "o" * 31, "o" * 33, "ö" * 32, VIEWER, [OPERATOR]])
def test_a_wrong_token_gives_nothing(rights, token):
    assert rights.role_of_token(token) is None


def test_tokens_give_their_roles(remote):
    assert remote.role_of_token(OPERATOR) == "operator"
    assert remote.role_of_token(VIEWER) == "viewer"


def test_an_empty_token_is_nobodys_where_viewers_need_none(rights):
    assert rights.role_of_token("") is None


def test_on_loopback_everyone_may_read_and_see_eeg(rights):
    assert rights.role({}) == "viewer"
    assert rights.role({rights.cookie: "wrong"}) == "viewer"
    assert rights.role({rights.cookie: OPERATOR}) == "operator"
    assert rights.sees_eeg("viewer")


def test_beyond_loopback_viewers_need_a_token_and_eeg_is_the_operators(remote):
    assert remote.role({}) is None
    assert remote.role({remote.cookie: "wrong"}) is None
    assert remote.role({remote.cookie: VIEWER}) == "viewer"
    assert not remote.sees_eeg("viewer")
    assert remote.sees_eeg("operator")


def test_sessions_on_two_ports_do_not_share_a_cookie(rights):
    assert rights.cookie != Rights(8766, OPERATOR).cookie


@pytest.mark.parametrize("tokens", [("",), ("short",), (OPERATOR, "short")])
def test_a_short_token_is_refused(tokens):
    with pytest.raises(ValueError, match="at least 22 characters"):
        Rights(8765, *tokens)


def test_tokens_are_not_in_the_representation(remote):
    assert OPERATOR not in repr(remote)
    assert VIEWER not in repr(remote)


def test_the_rate_limit_lets_a_burst_through_and_then_its_rate():
    t = 0.0
    limit = RateLimit(rate=10, burst=5, clock=lambda: t)
    assert [limit.allows() for _ in range(7)] == [True] * 5 + [False] * 2
    t = 0.25
    assert [limit.allows() for _ in range(3)] == [True, True, False]
    t = 1000.0
    assert sum(limit.allows() for _ in range(100)) == 5
