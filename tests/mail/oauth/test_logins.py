"""XOAUTH2 and OAUTHBEARER, to Dovecot over IMAP and to the recording server over SMTP."""

from collections.abc import Iterator

import pytest

from lab.servers.dovecot import Dovecot, DovecotOptions
from lab.servers.recording import Behaviour, RecordingSmtp
from lab.servers.token_server import TokenServer
from tasks.wire.imap import ImapSession, LoginRefused
from tasks.wire.net import Budget, Endpoint, Security
from tasks.wire.sasl import AccessToken
from tasks.wire.smtp import SessionFailed, SmtpSession

ANNA = "anna@test.example"


@pytest.fixture(scope="module", params=["oauthbearer", "xoauth2", "plain"])
def imap(
    request: pytest.FixtureRequest, oauth_host: tuple[TokenServer, Dovecot, Iterator[str]]
) -> Iterator[tuple[str, int]]:
    """A Dovecot that offers one mechanism: its name and port."""
    options = DovecotOptions(
        introspection_url=f"{oauth_host[0].url}/introspect", extra=f"auth_mechanisms = {request.param}\n"
    )
    with Dovecot(options=options) as dovecot:
        dovecot.add_user(ANNA, "secret")
        dovecot.stop()
        dovecot.start()
        yield request.param, dovecot.imap_port


def test_dovecot_s_own_oauth_login(imap: tuple[str, int], token_server: TokenServer) -> None:
    mechanism, port = imap
    good, _ = token_server.grant(ANNA)
    other, _ = token_server.grant("ben@test.example")

    def log_in(token: str) -> None:
        endpoint = Endpoint("127.0.0.1", port, Security.NONE)
        ImapSession.open(endpoint, ANNA, AccessToken(token), timeout=20, connect_timeout=5).close()

    if mechanism == "plain":
        with pytest.raises(LoginRefused, match="offers no login by OAuth"):
            log_in(good)
        return
    log_in(good)
    for bad in (other, "no-such-token"):
        with pytest.raises(LoginRefused, match="refused the login") as caught:
            log_in(bad)
        assert bad not in str(caught.value)


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_smtp_by_access_token(mechanism: str, token_server: TokenServer) -> None:
    login = "anna=a,b@test.example"
    good, _ = token_server.grant(login)
    behaviour = Behaviour(mechanisms=("PLAIN", mechanism), whose=token_server.whose)

    with RecordingSmtp(behaviour) as server:
        endpoint = Endpoint("127.0.0.1", server.port, Security.NONE)
        SmtpSession.open(endpoint, login, AccessToken(good), Budget(5)).close()
        with pytest.raises(SessionFailed, match="535") as caught:
            SmtpSession.open(endpoint, login, AccessToken("no-such-token"), Budget(5))

    assert caught.value.login_refused
    assert "no-such-token" not in str(caught.value)


def test_smtp_without_oauth_says_so(token_server: TokenServer) -> None:
    with RecordingSmtp() as server, pytest.raises(SessionFailed, match=r"no login by OAuth 2\.0, only PLAIN"):
        SmtpSession.open(
            Endpoint("127.0.0.1", server.port, Security.NONE), ANNA, AccessToken("token"), Budget(5)
        )
