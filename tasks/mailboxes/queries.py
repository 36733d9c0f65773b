"""The SQL of mailboxes."""

from sqlalchemy import text

from schema.tables import outbound, sync

# A lane is enabled where every switch on the way to the server is on.
_READY = """
    m.state IN ('active', 'needs_attention') AND NOT m.awaiting_confirmation AND NOT p.disabled
"""
_RECEIVES = "coalesce(p.paused NOT IN ('receiving', 'both'), true)"
_SENDS = "coalesce(p.paused NOT IN ('sending', 'both'), true)"
_WHICH = """
    (m.id = cast(:mailbox_id AS bigint) OR m.provider_id = cast(:provider_id AS bigint))
"""


def _consented(protocol: str) -> str:
    """That a protocol which logs in by OAuth 2.0 has tokens to do so."""
    return f"""(
        p.{protocol}_authentication <> 'oauth2'
        OR EXISTS (SELECT FROM mailwright.mailbox_tokens AS t WHERE t.mailbox_id = m.id)
    )"""


REFRESH_SCHEDULE = text(f"""
    -- Write the schedule's row of one mailbox, or those of a provider's mailboxes.
    -- Indexes: mailboxes_pkey, mailboxes_provider_id_idx.
    WITH wanted AS (
        SELECT m.id AS mailbox_id, m.provider_id, lower(coalesce(p.imap_host, '')) AS host,
               m.login || '@' || lower(coalesce(p.imap_host, '')) AS account,
               coalesce(m.poll_seconds, 30) AS interval_seconds,
               m.receive AND p.receive AND {_consented("imap")} AND {_RECEIVES} AND {_READY} AS enabled
        FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
        WHERE {_WHICH}
    )
    INSERT INTO mailwright.schedule AS s (mailbox_id, provider_id, host, account, interval_seconds, enabled)
    SELECT mailbox_id, provider_id, host, account, interval_seconds, enabled FROM wanted
    WHERE enabled OR EXISTS (SELECT FROM mailwright.schedule AS x WHERE x.mailbox_id = wanted.mailbox_id)
    ORDER BY mailbox_id
    ON CONFLICT (mailbox_id) DO UPDATE
    SET provider_id = excluded.provider_id, host = excluded.host, account = excluded.account,
        enabled = excluded.enabled,
        next_poll_at = CASE
            WHEN excluded.enabled AND NOT s.enabled
            THEN now() + random() * make_interval(secs => cast(:spread AS float8)) ELSE s.next_poll_at END
    WHERE (s.provider_id, s.host, s.account, s.enabled)
          IS DISTINCT FROM (excluded.provider_id, excluded.host, excluded.account, excluded.enabled)
""")  # noqa: S608  the parts are ours

REFRESH_OUTBOX_LANES = text(f"""
    WITH wanted AS (
        SELECT m.id AS mailbox_id, m.provider_id, lower(coalesce(p.smtp_host, '')) AS host,
               m.login || '@' || lower(coalesce(p.smtp_host, '')) AS account,
               m.send AND p.send AND {_consented("smtp")} AND {_SENDS} AND {_READY} AS enabled
        FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
        WHERE {_WHICH}
    )
    INSERT INTO mailwright.outbox_lanes AS l (mailbox_id, provider_id, host, account, enabled)
    SELECT mailbox_id, provider_id, host, account, enabled FROM wanted
    WHERE enabled OR EXISTS (SELECT FROM mailwright.outbox_lanes AS x WHERE x.mailbox_id = wanted.mailbox_id)
    ORDER BY mailbox_id
    ON CONFLICT (mailbox_id) DO UPDATE
    SET provider_id = excluded.provider_id, host = excluded.host, account = excluded.account,
        enabled = excluded.enabled,
        next_due_at = CASE
            WHEN excluded.enabled AND NOT l.enabled THEN least(l.next_due_at, (
                SELECT min(o.due_at) FROM mailwright.outbox AS o
                WHERE o.mailbox_id = l.mailbox_id AND o.state IN ('queued', 'deferred')
            ))
            ELSE l.next_due_at END
    WHERE (l.provider_id, l.host, l.account, l.enabled)
          IS DISTINCT FROM (excluded.provider_id, excluded.host, excluded.account, excluded.enabled)
""")  # noqa: S608

WAKE = text("""
    -- Look at a mailbox at once: its credentials or its pause changed.
    WITH polled AS (
        UPDATE mailwright.schedule SET next_poll_at = now(), failures = 0
        WHERE mailbox_id = :mailbox_id AND enabled
    )
    UPDATE mailwright.outbox_lanes
    SET failures = 0, next_due_at = (
        SELECT min(o.due_at) FROM mailwright.outbox AS o
        WHERE o.mailbox_id = :mailbox_id AND o.state IN ('queued', 'deferred')
    )
    WHERE mailbox_id = :mailbox_id AND enabled
      AND EXISTS (SELECT FROM mailwright.outbox AS o
                  WHERE o.mailbox_id = :mailbox_id AND o.state IN ('queued', 'deferred'))
""")

WAIT_IMAP = text("""
    UPDATE mailwright.schedule SET next_poll_at = greatest(next_poll_at, :until)
    WHERE mailbox_id = :mailbox_id
""")
WAIT_SMTP = text("""
    UPDATE mailwright.outbox_lanes SET next_due_at = greatest(next_due_at, :until)
    WHERE mailbox_id = :mailbox_id AND next_due_at IS NOT NULL
""")
SET_INTERVAL = text("""
    UPDATE mailwright.schedule SET interval_seconds = :interval, next_poll_at = least(next_poll_at, now())
    WHERE mailbox_id = :mailbox_id
""")

HELD = text("""
    -- Whether a worker is at this mailbox now.
    SELECT EXISTS (SELECT FROM mailwright.schedule WHERE mailbox_id = :mailbox_id AND lease_until > now())
        OR EXISTS (SELECT FROM mailwright.outbox_lanes WHERE mailbox_id = :mailbox_id AND lease_until > now())
""")
TAKE_LEASES = tuple(
    text(f"""
        -- Outdate the fencing token: whoever thinks to hold this lease loses at its next commit.
        UPDATE mailwright.{table}
        SET enabled = false, lease_token = lease_token + 1, lease_owner = NULL, lease_until = NULL
        WHERE mailbox_id = :mailbox_id
    """)  # noqa: S608
    for table in ("schedule", "outbox_lanes")
)

ERASE_OUTBOX = text("""
    -- What was noted of attempts under way goes along. Told of each is its fate where it was not over: nobody
    -- knows it where DATA had begun, or where Postgres forgot whether. Index: outbox_mailbox.
    WITH batch AS (
        SELECT id FROM mailwright.outbox WHERE mailbox_id = :mailbox_id ORDER BY id LIMIT :batch
    ), tried AS (
        SELECT a.outbound_id, a.uid FROM mailwright.attempts AS a JOIN batch ON a.outbound_id = batch.id
        WHERE a.ended_at IS NULL
    ), noted AS (
        DELETE FROM mailwright.data_started AS d USING tried WHERE d.attempt_uid = tried.uid
        RETURNING tried.outbound_id
    )
    DELETE FROM mailwright.outbox AS o USING batch WHERE o.id = batch.id
    RETURNING o.uid, (SELECT tried.uid FROM tried WHERE tried.outbound_id = o.id) AS attempt,
        CASE WHEN o.state IN ('queued', 'deferred', 'held') THEN 'cancelled'
             WHEN o.state = 'armed' AND (
                 o.id IN (SELECT outbound_id FROM noted) OR o.witness IS DISTINCT FROM (
                     SELECT witness FROM mailwright.data_started
                     WHERE attempt_uid = '00000000-0000-0000-0000-000000000000'
                 )
             ) THEN 'uncertain'
             WHEN o.state = 'armed' THEN 'cancelled' END AS fate
""")
REMOVALS = text("""
    -- Removals that no worker holds up any more.
    -- Indexes: mailboxes_removing, schedule_pkey, outbox_lanes_pkey.
    SELECT m.id FROM mailwright.mailboxes AS m
    WHERE m.state = 'removing'
      AND NOT EXISTS (
          SELECT FROM mailwright.schedule AS s WHERE s.mailbox_id = m.id AND s.lease_until > now()
      )
      AND NOT EXISTS (
          SELECT FROM mailwright.outbox_lanes AS l WHERE l.mailbox_id = m.id AND l.lease_until > now()
      )
    ORDER BY m.id LIMIT :limit
""")
ERASE_MESSAGES = text("""
    -- Places, raw bytes and attachments go along; index: messages_newest.
    DELETE FROM mailwright.messages WHERE id IN (
        SELECT id FROM mailwright.messages WHERE mailbox_id = :mailbox_id LIMIT :batch
    )
    RETURNING id
""")
ERASE_PLACES = text("""
    -- Stubs, which have no message to go along with.
    DELETE FROM mailwright.places WHERE (epoch_id, imap_uid) IN (
        SELECT p.epoch_id, p.imap_uid FROM mailwright.places AS p
        JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id
        WHERE e.mailbox_id = :mailbox_id LIMIT :batch
    )
    RETURNING imap_uid
""")
_SMALL = (
    sync.Folder,
    sync.Reference,
    sync.SearchBacklog,
    sync.Command,
    outbound.IdempotencyKey,
    outbound.OutboxWake,
)
ERASE_SMALL = {
    table.__tablename__: text(f"""
        DELETE FROM mailwright.{table.__tablename__} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM mailwright.{table.__tablename__} WHERE mailbox_id = :mailbox_id LIMIT :batch
        ))
        RETURNING 1
    """)  # noqa: S608  the names are our tables'
    for table in _SMALL
}
_TELLING = """type NOT LIKE 'mailbox.%' AND type <> 'outbound.cancelled'
              AND NOT (type = 'outbound.uncertain' AND NOT data ? 'recipients')"""
REDACT_PENDING = text(f"""
    -- Events keep their place in the order and lose what they told. Of the mailbox's and outgoing
    -- messages' own lives no content is in them; these stay.
    UPDATE mailwright.events_pending SET data = '{{"erased": true}}' WHERE id IN (
        SELECT id FROM mailwright.events_pending
        WHERE mailbox_id = :mailbox_id AND data <> '{{"erased": true}}'
          AND {_TELLING}
        ORDER BY id LIMIT :batch FOR UPDATE SKIP LOCKED
    )
    RETURNING id
""")  # noqa: S608
REDACT_EVENTS = text(f"""
    -- Index: events_mailbox.
    WITH next AS (
        SELECT position FROM mailwright.events
        WHERE mailbox_id = :mailbox_id AND position > :after ORDER BY position LIMIT :batch
    ), redacted AS (
        UPDATE mailwright.events SET data = '{{"erased": true}}' FROM next
        WHERE events.position = next.position
          AND {_TELLING}
    )
    SELECT position FROM next
""")  # noqa: S608
ERASE_MAILBOX = text("DELETE FROM mailwright.mailboxes WHERE id = :mailbox_id RETURNING id")

LANES = text("""
    -- What a person asks first: when was it synced, when is it next, what went wrong, what waits.
    SELECT s.last_synced_at, s.next_poll_at, s.last_error,
           (SELECT count(*) FROM mailwright.messages AS g WHERE g.mailbox_id = m.id) AS messages,
           (SELECT count(*) FROM mailwright.outbox AS o
            WHERE o.mailbox_id = m.id AND o.state IN ('queued', 'deferred')) AS waiting_to_send
    FROM mailwright.mailboxes AS m LEFT JOIN mailwright.schedule AS s ON s.mailbox_id = m.id
    WHERE m.id = :mailbox_id
""")
