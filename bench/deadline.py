"""The response timeout: 100 misbehaving servers at once, each given up after 5 seconds of waiting.

The servers drip an answer byte by byte, stall within it, stay silent, or read so slowly that the answer
comes too late, at each step from the greeting to the reply to the final dot, in the clear and over TLS.
They run in a process of their own. Ours is one session and one message to each, all in parallel, under a
budget of 5 s for the whole dialogue; measured is what the budget counted as waiting, and beside it the time
by the wall, which has our own work in it too. The peer is Python's smtplib with ``timeout=5``, which many
mailers are built on: its time-out is one of silence, so a server that drips keeps it for as long as the
bench looks, 20 s.
"""

import argparse
import json
import os
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from lab.servers.certificates import Certificate, issue
from lab.servers.smtp_faults import Drip, Fault, FaultySmtp, Hang, Slow, Stall
from tasks.wire.net import Budget, Endpoint, Security
from tasks.wire.smtp import Envelope, Outcome, SessionFailed, SmtpSession

SECONDS: Final = 5.0
SIZES: Final = (25, 50, 100)
LOOKED_AT: Final = 20.0
"""Seconds after which the peer is left alone."""
STEPS: Final = ("greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot")
WAITS: Final[dict[str, Fault]] = {"drip": Drip(0.1), "stall": Stall(), "silence": Hang()}
SMALL: Final = b"Subject: hello\r\n\r\nhello\r\n"
LARGE: Final = SMALL + (b"x" * 998 + b"\r\n") * 8_000
"""More than both kernels' buffers hold, so that a server which does not read is felt."""
FROM, TO = "anna@bench.example", "ben@far.example"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What one server does wrong."""

    step: str
    way: str
    tls: bool

    @property
    def fault(self) -> Fault:
        """As the lab has it. A slow reader takes 2 s for each byte of a command; of the content, 20 bytes a
        second."""
        if self.way == "slow reader":
            return Slow(chunk=1, pause=0.05 if self.step == "body" else 2.0)
        return WAITS[self.way]

    @property
    def security(self) -> Security:
        """How it is spoken to."""
        if self.tls:
            return Security.TLS
        return Security.STARTTLS if self.step == "starttls" else Security.NONE


@dataclass(frozen=True, slots=True)
class Where:
    """A server that listens."""

    port: int
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class GivenUp:
    """How long a server kept us: by the budget and by the wall, in seconds."""

    waited: float
    wall: float
    trouble: Trouble


def troubles(count: int) -> list[Trouble]:
    """Every way of every step, in turn."""
    ways = [(step, way) for step in STEPS for way in WAITS]
    ways += [(step, "slow reader") for step in ("ehlo", "starttls", "auth", "mail", "rcpt", "data", "body")]
    ways += [("body", "silence")]
    each = [Trouble(step, way, tls) for tls in (False, True) for step, way in ways]
    return list(islice(cycle(t for t in each if not (t.tls and t.step == "starttls")), count))


def serve(count: int, home: Path) -> None:
    """Inside the servers' process: listen, tell where, and go on until standard input ends."""
    certificate = Certificate(home / "ca.pem", home / "chain.pem", home / "key.pem")
    with ExitStack() as stack:
        told = []
        for trouble in troubles(count):
            server = FaultySmtp(
                {trouble.step: trouble.fault},
                certificate=certificate,
                tls=trouble.tls,
                receive_buffer=4096 if trouble.step == "body" else None,
            )
            told.append({"port": stack.enter_context(server).port, "trouble": asdict(trouble)})
        print(json.dumps(told), flush=True)
        sys.stdin.read()


@contextmanager
def servers(count: int, home: Path) -> Iterator[list[Where]]:
    """That process."""
    command = [sys.executable, "-P", __file__, "--serve", str(count), str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield [Where(each["port"], Trouble(**each["trouble"])) for each in told]
        finally:
            process.stdin.close()


def give_up(where: Where, ca: str) -> GivenUp:
    """One message to one server. Fails where it is not given up by the budget."""
    budget, begun = Budget(SECONDS), time.monotonic()
    endpoint = Endpoint("127.0.0.1", where.port, where.trouble.security, ca)
    content = LARGE if where.trouble.step == "body" else SMALL
    try:
        session = SmtpSession.open(endpoint, FROM, "secret", budget)
        delivery = session.send(Envelope(FROM, (TO,)), content, budget)
        session.close()
        wanted = Outcome.UNCERTAIN if where.trouble.step == "dot" else Outcome.DEFERRED
        if delivery.outcome is not wanted:
            raise SystemExit(f"{where.trouble}: {delivery.outcome}, not {wanted}")
    except SessionFailed:
        pass
    return GivenUp(budget.waited, time.monotonic() - begun, where.trouble)


def smtplib_gives_up(where: Where, ca: Path) -> float:
    """Seconds that smtplib stays with one server."""
    context, begun = ssl.create_default_context(cafile=ca), time.monotonic()
    client: smtplib.SMTP | None = None
    try:
        if where.trouble.tls:
            client = smtplib.SMTP_SSL("localhost", where.port, timeout=SECONDS, context=context)
        else:
            client = smtplib.SMTP("localhost", where.port, timeout=SECONDS)
        if where.trouble.security is Security.STARTTLS:
            client.starttls(context=context)
        client.login(FROM, "secret")
        client.sendmail(FROM, [TO], LARGE if where.trouble.step == "body" else SMALL)
    except (OSError, smtplib.SMTPException):
        pass
    finally:
        if client is not None:
            client.close()
    return time.monotonic() - begun


def in_parallel(work: Callable[[Where], GivenUp], where: Sequence[Where]) -> list[GivenUp]:
    """All at once."""
    with ThreadPoolExecutor(len(where)) as pool:
        return list(pool.map(work, where))


def peer(count: int, home: Path) -> float:
    """The longest that smtplib stays with any server, at most `LOOKED_AT`."""
    with servers(count, home) as where:
        pool = ThreadPoolExecutor(count)
        begun = time.monotonic()
        going = [pool.submit(smtplib_gives_up, each, home / "ca.pem") for each in where]
        while time.monotonic() - begun < LOOKED_AT and not all(each.done() for each in going):
            time.sleep(0.1)
        stayed = [each.result() if each.done() else LOOKED_AT for each in going]
    pool.shutdown()  # the servers are gone, so everybody has ended
    print(
        f"smtplib: {sum(each >= LOOKED_AT for each in stayed)} of {count} still with it after {LOOKED_AT:g} s"
    )
    return max(stayed)


def main() -> None:
    """Give up all of them, at three sizes, and print the figures as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=SIZES[-1])
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.serve:
        serve(int(wanted.serve[0]), Path(wanted.serve[1]))
        return
    growth = []
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as directory:
        home = Path(directory)
        ca = issue(home).ca_file.read_text()
        for count in sorted({size for size in SIZES if size < wanted.count} | {wanted.count}):
            with servers(count, home) as where:
                over = in_parallel(lambda each: give_up(each, ca), where)
            longest = max(over, key=lambda each: each.waited)
            growth.append([count, round(longest.waited, 3)])
            print(
                f"{count} servers: {min(each.waited for each in over):.3f} to {longest.waited:.3f} s of "
                f"waiting ({longest.trouble}), at most {max(each.wall for each in over):.3f} s by the wall"
            )
        theirs = peer(wanted.count, home)
    result = {
        "name": "deadline",
        "ours": round(longest.waited, 3),
        "peer": round(theirs, 3),
        "ratio": round(theirs / longest.waited, 2),
        "unit": "s until the last is given up",
        "min_s": round(min(each.waited for each in over), 3),
        "max_s": round(longest.waited, 3),
        "max_wall_s": round(max(each.wall for each in over), 3),
        "growth": growth,
        "setup": {
            "servers": wanted.count,
            "timeout_s": SECONDS,
            "troubles": sorted({f"{each.trouble.way} at {each.trouble.step}" for each in over}),
            "cores": os.cpu_count(),
            "ours": "one session and one message to each, in parallel, the budget's own count of waiting",
            "peer": f"smtplib with timeout={SECONDS:g}, looked at for {LOOKED_AT:g} s",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
