"""Typed settings, read once at the start of a process.

Sources, first wins: ``MAILWRIGHT_*`` environment variables, ``.env`` in the working directory,
``stack.env`` in the home directory (written by ``mailwright up``), the defaults here.
"""

import os
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.errors import UserError


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


def home_directory() -> Path:
    """The directory of the embedded stack: ``MAILWRIGHT_HOME``, else ``~/.mailwright``."""
    try:
        return Path(os.environ.get("MAILWRIGHT_HOME") or Path.home() / ".mailwright").expanduser()
    except RuntimeError:
        raise UserError(
            "there is no home directory to be found. Set MAILWRIGHT_HOME to a directory of yours."
        ) from None


class Settings(BaseSettings):
    """All that an operator can set; each field is the variable ``MAILWRIGHT_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="MAILWRIGHT_", extra="ignore", env_file_encoding="utf-8")

    home: Path = Field(
        default_factory=home_directory, description="Directory of the embedded stack and key ring."
    )
    database_url: SecretStr | None = Field(
        None, description="Postgres 15 or newer, as postgresql://user:password@host:port/database?sslmode=…"
    )
    broker_url: SecretStr | None = Field(
        None, description="Redis or Valkey, as redis://, rediss:// or redis+socket:///path?virtual_host=0."
    )
    key_ring: SecretStr | None = Field(
        None,
        description="Key ring: comma-separated 'id:base64 of 32 bytes'; the last one seals.",
    )
    key_ring_file: Path | None = Field(
        None, description="File with the key ring; default keyring in the home directory."
    )
    log_format: LogFormat = Field(LogFormat.CONSOLE, description="json or console.")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR."
    )
    concurrency: int = Field(8, ge=1, le=64, description="Tasks a worker process runs at once (threads).")
    lease_seconds: float = Field(
        60.0, ge=1, le=3600, description="How long a worker holds a mailbox without renewing."
    )
    tick_seconds: float = Field(
        0.25,
        ge=0.1,
        le=60,
        description="How often beat wakes the sync; history and search at most once a second.",
    )
    dispatch_tick_seconds: float = Field(0.25, ge=0.05, le=60, description="How often beat wakes dispatch.")
    poll_min_seconds: float = Field(
        30.0, ge=0.01, description="Shortest pause between two polls of a busy mailbox."
    )
    poll_max_seconds: float = Field(
        600.0, ge=0.01, description="Longest pause between two polls of a quiet mailbox."
    )
    sync_slice_seconds: float = Field(
        30.0, ge=1, description="How long one sync works on a mailbox before it yields."
    )
    imap_timeout_seconds: float = Field(60.0, ge=1, description="Longest silence of an IMAP server.")
    held_sessions: int = Field(
        500, ge=0, description="IMAP sessions that a worker process keeps open between polls."
    )
    connect_timeout_seconds: float = Field(10.0, ge=0.1, description="Longest wait for a TCP connection.")
    watch_sessions: int = Field(
        5000, ge=0, le=100_000, description="Mailboxes a watcher process listens to at most; 0: none."
    )
    watch_renew_seconds: float = Field(
        540.0, ge=1, le=1740, description="Longest life of one IDLE before it is asked for again."
    )
    watch_probe_seconds: float = Field(
        240.0, ge=1, le=1740, description="Silence after which a watched server is asked if it is there."
    )
    watch_noop_seconds: float = Field(
        60.0, ge=1, le=1740, description="Pause between two NOOPs at servers without IDLE."
    )
    watch_lease_seconds: float = Field(
        8.0, ge=1, le=300, description="How soon the mailboxes of a watcher that died go to others."
    )
    watch_logins: int = Field(16, ge=1, le=64, description="Logins a watcher has under way at once.")
    max_message_bytes: int = Field(
        100 * 2**20, ge=2**16, description="Larger messages get a stub row instead of a body."
    )
    sent_search_grace_seconds: float = Field(
        600.0,
        ge=1,
        description="Time after which Sent is searched for mail in doubt, where the provider files it there.",
    )
    staging_address: str | None = Field(
        None,
        pattern=r"^[^\s<>@]+@[^\s<>@]+$",
        description="Staging mode: all outgoing mail goes to this address, and to nobody else.",
    )
    trust_failover: bool = Field(
        False, description="Go on sending when a standby of Postgres took over: it is known to lack nothing."
    )
    event_stream: str = Field("mailwright:events", description="Name of the Redis stream of events.")
    event_stream_length: int = Field(
        100_000, ge=100, description="Events kept in the Redis stream, approximately."
    )
    event_sinks: str = Field("log,redis", description="Sinks the relay feeds, comma-separated: log, redis.")
    enqueue_as: str = Field(
        "administrator,*",
        description="Users on whose behalf Celery tasks may hand in mail, comma-separated: the first where a "
        "task names none; * is anyone.",
    )
    http_address: str = Field(
        "127.0.0.1", description="Address the HTTP API listens on; it speaks no TLS itself."
    )
    http_port: int = Field(8080, ge=1, le=65535, description="Port of the HTTP API.")
    database_pool: int = Field(
        10, ge=1, le=200, description="Connections to Postgres a process holds at most."
    )

    def require_database_url(self) -> str:
        """The database URL, as SQLAlchemy wants it. Raises `UserError` where none is set."""
        if self.database_url is None:
            raise UserError(
                "no database is set. Start the embedded stack with `mailwright up`, "
                "or set MAILWRIGHT_DATABASE_URL=postgresql://…"
            )
        url = self.database_url.get_secret_value()
        for plain in ("postgresql://", "postgres://"):
            if url.startswith(plain):
                return "postgresql+psycopg://" + url.removeprefix(plain)
        if not url.startswith("postgresql+psycopg://"):
            raise UserError("MAILWRIGHT_DATABASE_URL must start with postgresql:// (Postgres 15 or newer).")
        return url

    def require_broker_url(self) -> str:
        """The broker URL. Raises `UserError` where none is set, or what is set is none."""
        if self.broker_url is None:
            raise UserError(
                "no broker is set. Start the embedded stack with `mailwright up`, "
                "or set MAILWRIGHT_BROKER_URL=redis://…"
            )
        url = self.broker_url.get_secret_value()
        if not all(_is_broker(each) for each in url.split(";")):  # of several, Celery takes one that works
            raise UserError(
                "MAILWRIGHT_BROKER_URL must be redis://HOST:PORT/NUMBER, rediss://… with TLS, "
                "or redis+socket:///PATH?virtual_host=0."
            )
        return url

    def key_ring_path(self) -> Path:
        """Where the key ring file lies when the ring is not given in ``key_ring``."""
        return self.key_ring_file or self.home / "keyring"


def _is_broker(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is no number
    except ValueError:
        return False
    if parts.scheme == "redis+socket":
        return bool(parts.path)
    return parts.scheme in ("redis", "rediss") and bool(parts.hostname)


def load_settings() -> Settings:
    """Read the settings. Raises `UserError` naming each bad variable, never its value."""
    try:
        return Settings(_env_file=(home_directory() / "stack.env", ".env"))  # type: ignore[call-arg]
    except ValidationError as error:
        faults = "; ".join(
            f"MAILWRIGHT_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise UserError(f"settings are not valid. {faults}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(
            f"settings cannot be read from .env here or from stack.env in {home_directory()}: "
            f"{type(error).__name__}. Each must be a text file of NAME=value lines in UTF-8."
        ) from None
