"""``mailwright secret``: make and rotate the key ring."""

import sys

import click

from config.errors import Conflict, UserError
from tasks.mailboxes import rotation
from tasks.secrets import append_key, new_key_line
from worker.cli.context import Cli, pass_cli


@click.group()
def secret() -> None:
    """Make and rotate the key ring under which passwords are sealed."""


@secret.command()
@pass_cli
def init(cli: Cli) -> None:
    """Make the key ring file, readable by you alone."""
    if cli.settings.key_ring is not None:
        raise UserError("MAILWRIGHT_KEY_RING holds a key ring already; a file would not be read.")
    path = cli.settings.key_ring_path()
    if path.exists():
        raise Conflict(f"there is a key ring at {path} already. Add a key with `mailwright secret rotate`.")
    try:
        append_key(path, new_key_line())
    except OSError as error:
        raise UserError(
            f"the key ring cannot be written to {path}: {error.strerror}. "
            "Set MAILWRIGHT_KEY_RING_FILE to a place of yours."
        ) from None
    cli.say(
        f"made the key ring {path}. Back it up apart from the database: without it no stored password opens.",
        path=str(path),
    )


@secret.command()
@click.option(
    "--drop-old", is_flag=True, help="Take the older keys out of the ring, once nothing needs them."
)
@pass_cli
def rotate(cli: Cli, drop_old: bool) -> None:
    """Add a key and seal every stored password under it. Workers go on meanwhile."""

    def heard(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\rsealed again: {done} of {total}   ", nl=False, err=True)

    rotated = rotation.rotate(cli.actor, cli.runtime, drop_old=drop_old, heard=heard)
    if sys.stderr.isatty() and rotated.resealed:
        click.echo("", err=True)
    lines = [
        f'added key "{rotated.active}"' if rotated.added else f'key "{rotated.active}" seals',
        f"sealed {rotated.resealed} secrets again",
    ]
    if rotated.dropped:
        lines.append(f"dropped {len(rotated.dropped)} older keys")
    sentence = "; ".join(lines) + "."
    if cli.runtime.keyring.path is None:
        sentence += (
            " The ring is in MAILWRIGHT_KEY_RING: to rotate, append `,ID:KEY` (32 random bytes in base64) "
            "to it, restart, and run this again."
        )
    cli.say(
        sentence,
        active=rotated.active,
        added=rotated.added,
        resealed=rotated.resealed,
        dropped=list(rotated.dropped),
    )
