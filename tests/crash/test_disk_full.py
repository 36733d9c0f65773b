"""No room for Postgres in mid-dispatch: what was accepted is kept and sent, each door refuses in clear words.

Once there is room again all goes on by itself.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import psycopg
import pytest

from lab.crash.disk import Disk, mountable, small_disk
from lab.crash.post import assert_doubt_is_listed, assert_each_delivered_as_told, enqueue_round, settled
from lab.crash.programs import connections, mailwright
from lab.crash.stack import WRITERS, CrashStack
from lab.http_door import HttpDoor, add_key, served
from tasks.outbound.sender import ARMED_AT_ONCE

pytestmark = pytest.mark.crash

WRITER: Final = WRITERS[0]
FULL_FOR: Final = 3.0
"""Seconds; longer than a lease."""


@pytest.fixture
def disk(stack: CrashStack) -> Iterator[Disk]:
    if not mountable():
        pytest.skip("a small disk cannot be mounted here: that takes root, and the right to mount")
    with small_disk(stack.postgres, stack.directory) as small:
        yield small


@dataclass(slots=True)
class Doors:
    """What was accepted, and what the doors said when they refused."""

    stack: CrashStack
    http: HttpDoor
    accepted: list[str]

    def refused_by_sql(self) -> str:
        """Hand in large messages until one is refused; the refusal's SQLSTATE."""
        for _ in range(10_000):
            try:
                with psycopg.connect(self.stack.postgres.conninfo()) as connection:
                    message = {"to": ["far@remote.example"], "subject": "Large", "text": noise()}
                    row = connection.execute(
                        "SELECT mailwright.enqueue(%s, %s)", (WRITER, psycopg.types.json.Jsonb(message))
                    ).fetchone()
            except psycopg.OperationalError as error:
                return error.sqlstate or str(error)
            assert row is not None
            self.accepted.append(str(row[0]))
        raise AssertionError("the disk never filled up")

    def refused_by_http(self) -> tuple[int, str]:
        """Status and code of the answer."""
        answer = self.http.enqueue(WRITER, {"to": ["far@remote.example"], "subject": "H", "text": noise()})
        if answer.status == 201:
            self.accepted.append(answer.said["id"])
        return answer.status, answer.said.get("code", "")

    def refused_by_command_line(self) -> tuple[int, str]:
        """Exit code and words."""
        words = ("--to", "far@remote.example", "--subject", "C", "--text", noise())
        done = subprocess.run(
            [str(mailwright()), "send", "--from", WRITER, *words],
            env=dict(self.stack.environment),
            cwd=self.stack.directory,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            self.accepted.append(done.stdout.split()[-1])
        return done.returncode, done.stderr


def noise() -> str:
    """Text that no compression makes small."""
    return os.urandom(30_000).hex()


def test_a_full_disk_refuses_at_every_door_and_costs_no_message(
    stack: CrashStack, disk: Disk, random: Random
) -> None:
    with served(stack.runtime.settings) as port:
        http = HttpDoor(port, add_key(stack.runtime.db))
        doors = Doors(stack, http, enqueue_round(stack, random))
        stack.wait(lambda: settled(stack, doors.accepted) > 0, "a part is sent", pause=0.01)
        open_then = sum(connections(worker.pid, stack.smtp.port) for worker in stack.workers)
        began = time.monotonic()
        disk.fill()

        by_sql = doors.refused_by_sql()
        by_http = doors.refused_by_http()
        by_command_line = doors.refused_by_command_line()
        print(by_sql, by_http, by_command_line, flush=True)
        time.sleep(max(0.0, began + FULL_FOR - time.monotonic()))
        assert all(program.running for program in (*stack.workers, *stack.others))
        disk.make_room()
        crashed = not stack.postgres.running
        if crashed:
            stack.postgres.start()

        stack.wait(
            lambda: settled(stack, doors.accepted) == len(doors.accepted), "every message sent or in doubt"
        )
        assert doors.refused_by_http()[0] == 201
        http.close()
    stack.wait(lambda: settled(stack, doors.accepted) == len(doors.accepted), "the last is sent")
    states = assert_each_delivered_as_told(stack, doors.accepted)
    print(f"{len(doors.accepted)} accepted, crashed: {crashed}, {dict(states)}", flush=True)
    assert states["sent"] + states["uncertain"] == len(doors.accepted), "a message failed that nobody refused"
    assert states["uncertain"] <= open_then * (ARMED_AT_ONCE if crashed else 1)
    assert_doubt_is_listed(stack)
    assert by_sql == "53100"
    assert by_http == (503, "database_down")
    code, words = by_command_line
    assert code == 1
    assert words.startswith("mailwright: the disk of Postgres is full;")
    assert len(words.splitlines()) == 1
