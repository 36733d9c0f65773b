"""Running on in the background: a daemon that tells its starter how far it has come."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from config.errors import MailwrightError, UserError

Echo = Callable[[str], None]
Ready = Callable[[], None]


def detached(work: Callable[[Echo, Ready], int], *, log: Path, echo: Echo) -> int:
    """Run ``work`` in a daemon and return 0 once it has called ready; its lines until then go to ``echo``.

    The daemon has a session of its own, no terminal, and ``log`` for its output. Raises `UserError` with the
    daemon's own words, or the log's name, if it ends before it is ready.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become_daemon(work, log, writing)  # never returns
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            told = json.loads(line)
            if "say" in told:
                echo(told["say"])
            elif "error" in told:
                raise UserError(told["error"])
            elif "code" in told:
                return int(told["code"])
    raise UserError(f"the stack ended before it was ready; see {log}")


def _become_daemon(work: Callable[[Echo, Ready], int], log: Path, writing: int) -> None:
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _redirect(log, writing)
        code = _run(work, log, writing)
    except BaseException:  # noqa: BLE001 - a daemon has nobody above it; the log is its caller
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(work: Callable[[Echo, Ready], int], log: Path, writing: int) -> int:
    telling = os.fdopen(writing, "w", encoding="utf-8")

    def tell(**content: object) -> None:
        try:
            if not telling.closed:
                telling.write(json.dumps(content) + "\n")
                telling.flush()
        except BrokenPipeError:  # the starter was interrupted; we go on
            os.dup2(os.open(os.devnull, os.O_WRONLY), telling.fileno())

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201 - into the log
        tell(say=line)

    def ready() -> None:
        tell(code=0)
        telling.close()

    try:
        code = work(say, ready)
    except MailwrightError as error:
        print(f"mailwright: {error}", flush=True)  # noqa: T201 - into the log
        tell(error=str(error))
        return 1
    tell(code=code)
    return code


def _redirect(log: Path, keep: int) -> None:
    """Leave the starter's terminal, pipes and directory: nothing of theirs stays open through us."""
    os.chdir("/")
    source = os.open(os.devnull, os.O_RDONLY)
    target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(source, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    highest = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, min(highest, 65536))
