"""The root of the command line: options that all nouns share, and the edge where errors are told.

Exit codes: 0 done, 1 refused or failed (one clear sentence on stderr), 2 wrong usage.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from config.errors import MailwrightError
from config.logging import configure_logging
from config.settings import load_settings
from worker.cli.context import Cli, plain

LONGEST_LINE: Final = 1000
"""Characters of a line on stderr; what a server says may be longer."""

# noun or verb -> (module, attribute, one line of help)
COMMANDS = {
    "up": ("worker.cli.stack", "up", "Start the embedded stack with workers, beat, relay, watcher and HTTP."),
    "down": ("worker.cli.stack", "down", "Stop the embedded stack."),
    "status": ("worker.cli.status", "status", "Tell what runs and what waits."),
    "doctor": ("worker.cli.doctor", "doctor", "Check the whole set-up and say what to mend."),
    "db": ("worker.cli.db", "db", "Apply and check migrations."),
    "provider": ("worker.cli.provider", "provider", "Describe mail services."),
    "domain": ("worker.cli.domain", "domain", "Say which provider serves a domain."),
    "user": ("worker.cli.user", "user", "Add, list and remove users."),
    "role": ("worker.cli.role", "role", "Add, list and remove roles."),
    "grant": ("worker.cli.grant", "grant", "Order the operation permissions."),
    "key": ("worker.cli.key", "key", "Make and remove keys to the HTTP API."),
    "audit": ("worker.cli.audit", "audit", "Read who changed what."),
    "mailbox": ("worker.cli.mailbox", "mailbox", "Add, test and manage mailboxes."),
    "sync": ("worker.cli.sync", "sync", "Ask for mailboxes to be synced now."),
    "message": ("worker.cli.message", "message", "List, show and export messages."),
    "send": ("worker.cli.send", "send", "Put a message in the queue."),
    "template": ("worker.cli.template", "template", "Keep templates of outgoing mail."),
    "outbox": ("worker.cli.outbox", "outbox", "See what is queued, and decide what becomes of it."),
    "suppression": ("worker.cli.suppression", "suppression", "Say who is not sent to any more."),
    "event": ("worker.cli.event", "event", "List and follow events."),
    "secret": ("worker.cli.secret", "secret", "Make and rotate the key ring."),
    "worker": ("worker.cli.run", "worker", "Run a worker."),
    "beat": ("worker.cli.beat", "beat", "Run beat, which only ticks."),
    "relay": ("worker.cli.run", "relay", "Run the relay, which feeds the event sinks."),
    "watcher": ("worker.cli.run", "watcher", "Run a watcher, which hears of new mail at once."),
    "http": ("worker.cli.run", "http", "Run the HTTP API."),
    "flower": ("worker.cli.run", "flower", "Run Flower, the task dashboard."),
}


class LazyGroup(click.Group):
    """Loads a command's module only when the command is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--as", "user", metavar="USER", default="administrator", help="Act as this user.")
@click.version_option(package_name="mailwright")
@click.pass_context
def cli(context: click.Context, as_json: bool, user: str) -> None:
    """Keep mailboxes in step with Postgres and get queued mail out."""
    context.obj = Cli(as_json=as_json, user=user)
    context.call_on_close(context.obj.close)


def main() -> None:
    """Run one command and exit with its code. A person never sees a traceback."""
    try:
        _require_text(sys.argv[1:])
        settings = load_settings()
        configure_logging(settings.log_format, settings.log_level)
        sys.exit(cli(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "mailwright"
        _tell(f"{' '.join(error.format_message().split())}\nSee: {path} --help")
        sys.exit(2)
    except click.ClickException as error:
        _tell(error.format_message())
        sys.exit(1)
    except MailwrightError as error:
        _tell(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        detail = os.environ.get("MAILWRIGHT_TRACEBACK")
        if detail:
            raise
        _tell(
            f"unexpected {type(error).__name__}; this is a fault of mailwright itself. "
            "Set MAILWRIGHT_TRACEBACK=1 and run it again to see where."
        )
        sys.exit(1)


def _require_text(arguments: Sequence[str]) -> None:
    """Raises `click.UsageError` for an argument that is not text in the terminal's encoding."""
    for number, argument in enumerate(arguments, 1):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise click.UsageError(f"argument {number}, {plain(argument)}, is not UTF-8 text.")


def _tell(message: str) -> None:
    """One clear sentence on stderr: at most two lines, whatever a server or a person put into it."""
    first, *rest = [line for line in message.splitlines() if line.strip()] or ["failed without a word."]
    for line in (f"mailwright: {first}", " ".join(rest)):
        if line:
            click.echo(plain(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"), err=True)
