"""Folders that a real Dovecot shows to everybody are not the user's mail."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from imapclient import IMAPClient

from lab.corpus import small
from lab.servers.dovecot import Dovecot, DovecotOptions
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.sync.conftest import Followed

USER, PASSWORD = "anna@test.example", "secret"
PUBLIC = {
    "2.3": "location = maildir:%h/../public",
    "2.4": "mail_driver = maildir\n  mail_path = %{home}/../public",
}


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Dovecot]:
    """A Dovecot with a public namespace beside the user's own."""
    probe = Dovecot()
    language = ".".join(probe.version.split(".")[:2])
    probe.close()
    extra = (
        f"namespace all {{\n  type = public\n  separator = /\n  prefix = Public/\n  "
        f"{PUBLIC[language]}\n  list = yes\n  subscriptions = no\n}}\n"
    )
    with Dovecot(options=DovecotOptions(extra=extra)) as server:
        server.add_user(USER, PASSWORD)
        yield server


@pytest.mark.parametrize(("wanted", "stored"), [(None, 2), (["INBOX", "Public/News"], 5)])
def test_what_everybody_sees_is_followed_where_it_is_named(
    runtime: Runtime, shared: Dovecot, wanted: list[str] | None, stored: int
) -> None:
    with IMAPClient("127.0.0.1", shared.imap_port, ssl=False) as program:
        program.login(USER, PASSWORD)
        program.create_folder("Public/News")
        for folder, count in (("INBOX", 2), ("Public/News", 3)):
            for raw in small(count, seed=count):
                program.append(folder, raw)
    provider = add_provider(runtime, Ports(imap=shared.imap_port))
    mailbox = add_mailbox(runtime, provider, USER, PASSWORD, folders=wanted)

    sync_now(runtime, mailbox, 2)

    ours = Followed(runtime, None, mailbox)  # type: ignore[arg-type]
    assert ours.folder("Public/News").selectable
    assert ours.messages() == stored
