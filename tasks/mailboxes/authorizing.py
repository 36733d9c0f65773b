"""Consent to log in by OAuth 2.0: what to ask a person for, and what to do with what comes of it."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import now as database_now

from config.errors import Conflict, UserError
from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox, MailboxSecret
from schema.tables.providers import Provider
from tasks import access
from tasks.access import Actor
from tasks.mailboxes import engine, health, lookup, queries, seals, store, tokens
from tasks.mailboxes.connection import Heard, Report, unheard
from tasks.mailboxes.lanes import refresh_lanes
from tasks.mailboxes.plan import Door, doors_of
from tasks.runtime import Runtime
from tasks.wire import oauth
from tasks.wire.oauth import Client, CodeRequest, DeviceCode, Pending, Tokens
from tasks.wire.sasl import AccessToken


@dataclass(frozen=True, slots=True)
class Consent:
    """A consent that is to be given: for which mailbox, to whom, and what it will open."""

    address: str
    login: str
    provider: str
    client: Client
    authorization_url: str | None
    device_url: str | None
    doors: tuple[Door, ...]
    route: str = field(repr=False)
    """What the tokens will be sealed for; a provider that changed meanwhile is noticed by it."""

    def in_browser(self, redirect_uri: str) -> CodeRequest:
        """Where to send a browser. Raises `UserError` where the provider's card does not say."""
        if self.authorization_url is None:
            raise UserError(self._lacks("authorization URL", "--oauth-authorization-url", "--device"))
        return oauth.code_request(self.client, self.authorization_url, redirect_uri, self.login)

    def on_device(self) -> DeviceCode:
        """A code for another device. Raises `UserError` where the provider's card does not say whom to
        ask, `ClientRefused`, `TokenServerFailed`."""
        if self.device_url is None:
            raise UserError(self._lacks("device URL", "--oauth-device-url", "no --device"))
        return oauth.start_device(self.client, self.device_url)

    def redeem(self, request: CodeRequest, code: str) -> Tokens:
        """The tokens for the code that the browser brought. Raises `GrantRefused`, `ClientRefused`,
        `TokenServerFailed`."""
        return oauth.redeem(self.client, code, request.verifier, request.redirect_uri)

    def poll(self, device: DeviceCode, interval: float) -> Tokens | Pending:
        """Ask once what the person at the device did; errors as `redeem`."""
        return oauth.poll_device(self.client, device, interval)

    def _lacks(self, what: str, option: str, other: str) -> str:
        return (
            f'"{self.provider}" has no OAuth {what}. Give it: mailwright provider edit "{self.provider}" '
            f"{option} URL; or authorize with {other}."
        )


def begin(actor: Actor, runtime: Runtime, address: str) -> Consent:
    """What consent a mailbox needs. Raises `UserError` where it logs in by password, `NotFound`,
    `PermissionDenied`."""
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"authorize the mailbox {address}")
        return _consent(session, runtime, lookup.get(session, address))


def finish(
    actor: Actor,
    runtime: Runtime,
    consent: Consent,
    given: Tokens,
    *,
    test: bool = True,
    store_anyway: bool = False,
    heard: Heard = unheard,
) -> tuple[Mailbox, tuple[Report, ...]]:
    """Test what the consent gave by logging in, and store it. Refusals counted so far are forgotten.

    Raises `TestFailed` (nothing stored) unless ``store_anyway``, `UserError` where there is no refresh
    token, `Conflict` where the provider changed meanwhile.
    """
    reports: tuple[Report, ...] = ()
    if test:
        secrets = {door.protocol: AccessToken(given.access) for door in consent.doors}
        reports = engine.probe_all(runtime, consent.doors, consent.login, secrets, heard)
        if not store_anyway:
            engine.require_all(reports, consent.address)
    with runtime.db.begin() as session:
        mailbox = engine.changeable(actor, session, consent.address, "authorize")
        if _consent(session, runtime, mailbox) != consent:
            raise Conflict(
                f'the mailbox or its provider "{consent.provider}" changed meanwhile. Authorize it again.'
            )
        provider = session.get_one(Provider, mailbox.provider_id)
        first = tokens.row_of(session, mailbox.id) is None
        now: datetime = session.execute(select(database_now())).scalar_one()
        tokens.store(session, runtime.keyring, mailbox, provider, given, now)
        _confirmed(session, mailbox, provider)
        engine.note(session, mailbox, [report for report in reports if report.ok])
        health.forget_refusals(session, mailbox)
        refresh_lanes(session, mailbox.id)
        session.execute(queries.WAKE, {"mailbox_id": mailbox.id})
        changes = {"tokens": (None if first else access.MASKED, access.MASKED)}
        store.audit(session, actor, "mailbox.authorized", mailbox, changes)
    return mailbox, reports


def _consent(session: Session, runtime: Runtime, mailbox: Mailbox) -> Consent:
    provider = session.get_one(Provider, mailbox.provider_id)
    doors = doors_of(provider, receive=mailbox.receive, send=mailbox.send)
    concerned = tuple(door for door in doors if door.oauth)
    if not concerned:
        raise UserError(
            f'"{provider.name}" takes a password from {mailbox.address}, not a consent. '
            f"Give it: mailwright mailbox edit {mailbox.address} --password-stdin"
        )
    return Consent(
        mailbox.address,
        mailbox.login,
        provider.name,
        tokens.client_of(provider, runtime.keyring),
        provider.oauth_authorization_url,
        provider.oauth_device_url,
        concerned,
        seals.route_of(provider),
    )


def _confirmed(session: Session, mailbox: Mailbox, provider: Provider) -> None:
    """Consent given now is meant for the present hosts; a password from before may still wait."""
    secret = session.get(MailboxSecret, mailbox.id)
    if secret is None or seals.covers(secret.route, seals.route_of(provider)):
        mailbox.awaiting_confirmation = False
