"""Rotating the key ring under stored passwords, while a worker holds the old ring."""

from pathlib import Path

import pytest

from config.errors import PermissionDenied, UserError
from config.settings import Settings
from schema.tables.providers import Provider
from tasks import providers
from tasks.access import Actor
from tasks.mailboxes import NewMailbox, Protocol, engine, rotation, route
from tasks.runtime import Runtime
from tasks.secrets import append_key, new_key_line, read_key_ring
from tests.integration.mailboxes.conftest import ADMIN, PASSWORD, Add, Rows


def unheard(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings whose key ring is a file."""
    path = tmp_path / "keyring"
    append_key(path, new_key_line())
    return Settings.model_validate(
        {"home": tmp_path, "database_url": database_url, "key_ring": None, "key_ring_file": path}
    )


@pytest.fixture
def many(add: Add) -> list[int]:
    """More mailboxes than one batch."""
    return [add(f"m{n}@a.example").id for n in range(rotation.BATCH + 5)]


def test_every_secret_moves_to_the_new_key_and_opens_in_a_running_worker(
    settings: Settings, runtime: Runtime, many: list[int], rows: Rows
) -> None:
    worker = Runtime.open(settings)
    try:
        heard: list[tuple[int, int]] = []
        rotated = rotation.rotate(ADMIN, runtime, heard=lambda *at: heard.append(at), drop_old=True)

        assert (rotated.added, rotated.resealed) == (True, len(many))
        assert len(rotated.dropped) == 1
        assert heard[-1] == (len(many), len(many))
        assert rows("SELECT DISTINCT key_id FROM mailwright.mailbox_secrets") == [{"key_id": rotated.active}]
        with worker.db.begin() as session:
            assert route(session, worker.keyring, many[-1], Protocol.IMAP).password == PASSWORD
    finally:
        worker.close()


def test_old_keys_are_dropped_when_nothing_needs_them(
    settings: Settings, runtime: Runtime, many: list[int]
) -> None:
    rotation.rotate(ADMIN, runtime, heard=unheard)
    assert len(read_key_ring(settings.key_ring_path()).keys) == 2

    rotated = rotation.rotate(ADMIN, runtime, heard=unheard, drop_old=True)

    assert (rotated.added, rotated.resealed, len(rotated.dropped)) == (False, 0, 1)
    ring = read_key_ring(settings.key_ring_path())
    assert [name for name, _ in ring.keys] == [rotated.active]
    with runtime.db.begin() as session:
        assert rotation.check_openable(session, runtime).opened == len(many)


def test_a_rotation_broken_off_is_continued_without_another_key(
    settings: Settings, runtime: Runtime, many: list[int], rows: Rows
) -> None:
    class Killed(Exception):
        pass

    def killed(_done: int, _total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        rotation.rotate(ADMIN, runtime, heard=killed)
    assert len(rows("SELECT DISTINCT key_id FROM mailwright.mailbox_secrets")) == 2

    rotated = rotation.rotate(ADMIN, runtime, heard=unheard)

    assert (rotated.added, rotated.resealed) == (False, 5)
    assert len(read_key_ring(settings.key_ring_path()).keys) == 2


def test_a_secret_that_does_not_open_keeps_every_key(
    settings: Settings, runtime: Runtime, add: Add, rows: Rows
) -> None:
    add()
    rows("UPDATE mailwright.mailbox_secrets SET sealed = sealed || 'x'::bytea")

    with pytest.raises(UserError, match="does not open"):
        rotation.rotate(ADMIN, runtime, heard=unheard, drop_old=True)

    assert len(read_key_ring(settings.key_ring_path()).keys) == 2
    with runtime.db.begin() as session:
        found = rotation.check_openable(session, runtime)
    assert (found.total, found.opened, found.failed) == (1, 0, ("anna@a.example",))


def test_a_provider_s_client_secret_is_rotated_too(settings: Settings, runtime: Runtime, rows: Rows) -> None:
    draft = providers.ProviderDraft(
        name="O", imap_host="imap.o.example", receive=True, oauth_client_secret="shh"
    )
    with runtime.db.begin() as session:
        made = providers.add(ADMIN, session, draft, keyring=runtime.keyring)

    rotated = rotation.rotate(ADMIN, runtime, heard=unheard)
    assert rotation.rotate(ADMIN, runtime, heard=unheard, drop_old=True).dropped

    ring = read_key_ring(settings.key_ring_path())
    packed = rows("SELECT oauth_client_secret AS s FROM mailwright.providers")[0]["s"]
    assert providers.open_client_secret(ring, made.uid, packed) == "shh"
    assert rotated.resealed == 1


def test_only_an_administrator_rotates(runtime: Runtime, provider: Provider) -> None:
    before = runtime.keyring.active
    with pytest.raises(PermissionDenied):
        rotation.rotate(Actor("bob"), runtime, heard=unheard)
    runtime.keyring.reload()
    assert runtime.keyring.active == before


def test_a_ring_in_the_environment_is_ours_to_read_only(
    database_url: str, tmp_path: Path, provider: Provider, rows: Rows
) -> None:
    old, new = new_key_line(), new_key_line()
    settings = Settings.model_validate({"home": tmp_path, "database_url": database_url, "key_ring": old})
    before = Runtime.open(settings)
    engine.add(ADMIN, before, NewMailbox("anna@a.example", PASSWORD), test=False)
    assert rotation.rotate(ADMIN, before, heard=unheard).added is False
    before.close()

    after = Runtime.open(settings.model_copy(update={"key_ring": type(settings.key_ring)(f"{old},{new}")}))
    rotated = rotation.rotate(ADMIN, after, heard=unheard)
    after.close()

    assert (rotated.active, rotated.resealed) == (new.partition(":")[0], 1)
    assert rows("SELECT key_id FROM mailwright.mailbox_secrets") == [{"key_id": rotated.active}]
