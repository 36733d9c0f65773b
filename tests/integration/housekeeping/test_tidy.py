"""Chores: what was replaced goes away, what is current stays."""

from sqlalchemy import text

from lab.world import Ports, add_mailbox, add_provider
from tasks.access import SYSTEM
from tasks.housekeeping import tidy
from tasks.runtime import Runtime


def test_places_of_a_replaced_epoch_go_and_those_of_the_current_one_stay(runtime: Runtime) -> None:
    mailbox = add_mailbox(runtime, add_provider(runtime, Ports(imap=143)), "anna@test.example", "x")
    with runtime.db.begin() as session:
        folder = session.execute(
            text(
                "INSERT INTO mailwright.folders (mailbox_id, wire_name, name, selectable, followed) "
                "VALUES (:m, 'INBOX', 'INBOX', true, true) RETURNING id"
            ),
            {"m": mailbox},
        ).scalar_one()
        for state in ("retired", "current"):
            epoch = session.execute(
                text(
                    "INSERT INTO mailwright.folder_epochs (mailbox_id, folder_id, state, uidvalidity) "
                    "VALUES (:m, :f, :s, 1) RETURNING id"
                ),
                {"m": mailbox, "f": folder, "s": state},
            ).scalar_one()
            session.execute(
                text(
                    "INSERT INTO mailwright.places (epoch_id, imap_uid, mailbox_id, stub) "
                    "SELECT :e, n, :m, 'test' FROM generate_series(1, 3) AS n"
                ),
                {"e": epoch, "m": mailbox},
            )

    tidy(SYSTEM, runtime)

    with runtime.db.begin() as session:
        states = session.execute(text("SELECT state FROM mailwright.folder_epochs")).scalars().all()
        places = session.execute(text("SELECT count(*) FROM mailwright.places")).scalar_one()
    assert states == ["current"]
    assert places == 3
