"""Asking a token server: codes with PKCE, devices, rotation, and servers that misbehave."""

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from config.errors import MailwrightError
from lab.servers.token_server import Manners, TokenServer
from tasks.wire import oauth
from tasks.wire.oauth import Client, ClientRefused, GrantRefused, Pending, Tokens, TokenServerFailed
from tests.mail.oauth.conftest import CLIENT_SECRET


@pytest.fixture
def client(token_server: TokenServer) -> Client:
    """A client that the server knows, which waits two seconds."""
    url = f"{token_server.url}/token"
    return Client(token_server.client_id, url, CLIENT_SECRET, scopes="mail", patience=2.0)


def consent(url: str) -> str:
    """Be the browser: where it is sent back to."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(Stay).open(url)
    assert caught.value.code == 302
    return str(caught.value.headers["Location"])


def test_a_code_is_redeemed_only_with_its_verifier(token_server: TokenServer, client: Client) -> None:
    address = f"{token_server.url}/authorize?access_type=offline"
    request = oauth.code_request(client, address, "http://localhost:1/", "anna@test.example")
    back = parse_qs(urlsplit(consent(request.url)).query)
    other = oauth.code_request(client, address, "http://localhost:1/", "anna@test.example")

    assert "access_type=offline&response_type=code" in request.url
    assert back["state"] == [request.state]
    tokens = oauth.redeem(client, back["code"][0], request.verifier, request.redirect_uri)
    assert token_server.whose(tokens.access) == "anna@test.example"
    code = parse_qs(urlsplit(consent(other.url)).query)["code"][0]
    with pytest.raises(GrantRefused):
        oauth.redeem(client, code, request.verifier, other.redirect_uri)


def test_a_refresh_rotates_and_the_old_token_ends_the_grant(
    token_server: TokenServer, client: Client
) -> None:
    _, first = token_server.grant("anna@test.example")
    second = oauth.refresh(client, first).refresh
    assert second not in (None, first)

    with pytest.raises(GrantRefused, match="invalid_grant"):
        oauth.refresh(client, first)
    with pytest.raises(GrantRefused):
        oauth.refresh(client, second or "")


def test_a_device_waits_for_its_person(token_server: TokenServer, client: Client) -> None:
    device = oauth.start_device(client, f"{token_server.url}/device")
    assert oauth.poll_device(client, device, device.interval) == Pending(device.interval)

    token_server.approve(device.user_code, "anna@test.example")
    given = oauth.poll_device(client, device, device.interval)

    assert isinstance(given, Tokens)
    assert token_server.whose(given.access) == "anna@test.example"
    declined = oauth.start_device(client, f"{token_server.url}/device")
    token_server.deny(declined.user_code)
    with pytest.raises(GrantRefused, match="access_denied"):
        oauth.poll_device(client, declined, 1.0)


def test_a_server_that_wants_the_secret_in_the_header_gets_it(
    token_server: TokenServer, client: Client
) -> None:
    token_server.manners = Manners(secret="s:%/é", basic_only=True)
    _, refresh = token_server.grant("anna@test.example")

    assert oauth.refresh(replace(client, secret="s:%/é"), refresh).access


def test_an_unknown_client_is_told_from_a_refused_grant(token_server: TokenServer, client: Client) -> None:
    _, refresh = token_server.grant("anna@test.example")

    with pytest.raises(ClientRefused, match=r"invalid_client.*client id, secret") as caught:
        oauth.refresh(replace(client, secret="wrong secret"), refresh)
    assert "wrong secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("manners", "words"),
    [
        (Manners(instead=(500, b"<h1>oops</h1>")), "status 500"),
        (Manners(instead=(503, b'{"error": "invalid_grant"}')), "status 503"),
        (Manners(instead=(429, b'{"error": "invalid_request"}')), "status 429"),
        (Manners(instead=(200, b"\xff\xfe\x00garbage")), "no JSON object"),
        (Manners(instead=(200, b"[" * 100_000)), "no JSON object"),
        (Manners(instead=(200, b'{"access_token": "a b", "token_type": "bearer"}')), "no token"),
        (Manners(instead=(200, b'{"access_token": "a", "token_type": "mac"}')), "no bearer token"),
        (Manners(instead=(200, b" " * (oauth.LONGEST_ANSWER + 1))), "without end"),
        (Manners(instead=(302, b"{}")), "status 302"),
        (Manners(pause=1.0), r"kept us waiting 0\.5 s"),
    ],
)
def test_what_is_no_answer_is_only_a_fault_of_today(
    token_server: TokenServer, client: Client, manners: Manners, words: str
) -> None:
    _, refresh = token_server.grant("anna@test.example")
    token_server.manners = manners

    with pytest.raises(TokenServerFailed, match=words) as caught:
        oauth.refresh(replace(client, patience=0.5), refresh)
    assert refresh not in str(caught.value)


def test_words_that_echo_a_secret_are_not_kept(token_server: TokenServer, client: Client) -> None:
    echo = b'{"error": "invalid_grant", "error_description": "no such token: very-secret-refresh"}'
    token_server.manners = Manners(instead=(400, echo))

    with pytest.raises(GrantRefused) as caught:
        oauth.refresh(client, "very-secret-refresh")
    assert "very-secret" not in str(caught.value) + caught.value.words


def test_no_secret_goes_out_without_tls(free_port: Callable[[], int], client: Client) -> None:
    for url in ("http://token.example/token", "ftp://127.0.0.1/", "https:///token", "http://127.0.0.1.evil/"):
        with pytest.raises(TokenServerFailed, match="Check the provider"):
            oauth.refresh(replace(client, token_url=url), "refresh")
    with pytest.raises(MailwrightError, match="refused the connection"):
        oauth.refresh(replace(client, token_url=f"http://127.0.0.1:{free_port()}/token"), "refresh")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A port that nobody listens on."""

    def found() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    return found
