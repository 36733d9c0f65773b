"""The stamping proxy: TLS in front of Dovecot that changes no byte, and the moment of each EXISTS."""

import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
from imapclient import IMAPClient

from lab.ports import wait_until
from lab.servers.dovecot import Dovecot
from lab.servers.stamping import StampingProxy
from tests.mail.conftest import Account


@pytest.fixture
def proxy(dovecot: Dovecot) -> Iterator[StampingProxy]:
    with StampingProxy(dovecot.imap_port, dovecot.certificate) as running:
        yield running


def program(proxy: StampingProxy, dovecot: Dovecot, account: Account) -> Any:
    context = ssl.create_default_context(cafile=str(dovecot.ca_file))
    client: Any = IMAPClient(proxy.host, proxy.port, ssl_context=context, timeout=30)
    client.login(account.address, account.password)
    return client


def test_what_passes_is_unchanged_however_large(
    proxy: StampingProxy, dovecot: Dovecot, account: Account
) -> None:
    mail = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 500_000
    client = program(proxy, dovecot, account)

    client.append("INBOX", mail)
    client.select_folder("INBOX")
    fetched = client.fetch([1], ["BODY.PEEK[]"])

    assert fetched[1][b"BODY[]"] == mail
    client.logout()


def test_exists_is_stamped_for_who_idles_with_the_moment_it_was_said(
    proxy: StampingProxy, dovecot: Dovecot, account: Account
) -> None:
    dovecot.deliver(account.address, b"Subject: before\r\n\r\n")
    client = program(proxy, dovecot, account)
    client.select_folder("INBOX")
    assert proxy.stamps() == {}, "EXISTS of a SELECT is no news"
    client.idle()
    mark, before = proxy.mark(), time.monotonic()

    dovecot.deliver(account.address, b"Subject: news\r\n\r\n")
    told = client.idle_check(20)
    after = time.monotonic()

    assert (2, b"EXISTS") in told
    wait_until(lambda: proxy.mark() > mark, 5, "the stamp")
    assert list(proxy.stamps(mark)) == [account.address]
    assert before < proxy.stamps(mark)[account.address] < after
    client.idle_done()
    client.logout()


def test_sessions_end_together_and_the_proxy_goes_on(
    proxy: StampingProxy, dovecot: Dovecot, account: Account
) -> None:
    for _ in range(30):  # three times what Dovecot allows a user at once
        program(proxy, dovecot, account).shutdown()

    client = program(proxy, dovecot, account)
    assert client.noop()[0].startswith(b"NOOP completed")
    client.logout()
