"""Mail servers for tests, one of each a test process."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.servers.dovecot import Dovecot


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """A real Dovecot; it looks for new accounts only once a second, so it is given them at the start."""
    with Dovecot() as server:
        yield server


@pytest.fixture(scope="session")
def accounts(dovecot: Dovecot) -> Iterator["Account"]:
    """Accounts that nobody used yet."""
    made = [Account(f"anna-{secrets.token_hex(4)}@test.example", secrets.token_hex(8)) for _ in range(200)]
    for each in made:
        dovecot.add_user(each.address, each.password)
    dovecot.stop()
    dovecot.start()
    return iter(made)


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the test's Dovecot."""

    address: str
    password: str


@pytest.fixture
def account(accounts: Iterator[Account]) -> Account:
    """A fresh account."""
    return next(accounts)
