"""Small chores, each in a transaction of its own, each safe to run twice at once."""

from sqlalchemy import text

from tasks import mailboxes, outbound, providers
from tasks.access import Actor
from tasks.mailboxes import removal
from tasks.runtime import Runtime
from tasks.watch import store as watch

BATCH = 5000

DROP_RETIRED_PLACES = text("""
    -- A message that is missing may only have been renumbered: its flags are held against those it had.
    DELETE FROM mailwright.places WHERE (epoch_id, imap_uid) IN (
        SELECT p.epoch_id, p.imap_uid FROM mailwright.places AS p
        JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id
        LEFT JOIN mailwright.messages AS m ON m.id = p.message_id
        WHERE e.state = 'retired' AND m.state IS DISTINCT FROM 'missing' LIMIT :batch
    )
""")

DROP_RETIRED_EPOCHS = text("""
    DELETE FROM mailwright.folder_epochs AS e WHERE e.state = 'retired'
      AND NOT EXISTS (SELECT 1 FROM mailwright.places AS p WHERE p.epoch_id = e.id)
""")

DROP_OLD_KEYS = text("""
    -- Idempotency keys are kept for 30 days past the message's end.
    DELETE FROM mailwright.idempotency_keys AS k USING mailwright.outbox AS o
    WHERE o.uid = k.outbound_uid AND o.ended_at < now() - interval '30 days'
""")

DROP_DONE_COMMANDS = text("""
    -- What failed is kept longer, with its reason.
    DELETE FROM mailwright.commands
    WHERE state IN ('done', 'void') AND created_at < now() - interval '7 days'
       OR state = 'failed' AND ended_at < now() - interval '30 days'
""")


def tidy(actor: Actor, runtime: Runtime) -> None:
    """Do every chore once."""
    with runtime.db.begin() as session:
        mailboxes.resume_due(session)
    with runtime.db.begin() as session:
        providers.resume_due(session)
    with runtime.db.begin() as session:
        session.execute(DROP_RETIRED_PLACES, {"batch": BATCH})
        session.execute(DROP_RETIRED_EPOCHS)
    for statement in (DROP_OLD_KEYS, DROP_DONE_COMMANDS):
        with runtime.db.begin() as session:
            session.execute(statement)
    watch.bury(runtime)
    outbound.settle_reports(runtime)
    outbound.look_for_evidence(runtime)
    removal.continue_removals(actor, runtime)
