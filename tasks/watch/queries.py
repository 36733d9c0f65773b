"""The SQL of watching."""

from sqlalchemy import text

# Claims are made one at a time, so that no account gets a session too many.
CLAIM_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mailwright.watch.claim'))")

RENEW = text("""
    -- One row renews the lease on everything this watcher holds.
    UPDATE mailwright.watchers
    SET until = clock_timestamp() + make_interval(secs => :lease), sessions = :sessions
    WHERE owner = :owner RETURNING owner
""")
REGISTER = text("""
    INSERT INTO mailwright.watchers (owner, until, sessions, most)
    VALUES (:owner, clock_timestamp() + make_interval(secs => :lease), :sessions, :most)
    ON CONFLICT (owner) DO NOTHING
""")

BURY = text("""
    -- Strike out watchers that are dead, or the one that says goodbye.
    DELETE FROM mailwright.watchers WHERE owner IN (
        SELECT owner FROM mailwright.watchers
        WHERE until <= clock_timestamp() OR owner = cast(:leaving AS text)
        FOR UPDATE SKIP LOCKED
    )
    RETURNING owner
""")
INHERIT = text("""
    -- Free what they watched; index: watches_watcher.
    WITH theirs AS (
        SELECT mailbox_id FROM mailwright.watches WHERE watcher = ANY(:owners)
        ORDER BY mailbox_id FOR UPDATE
    )
    UPDATE mailwright.watches AS w SET watcher = NULL, connected_at = NULL, retry_at = now()
    FROM theirs WHERE w.mailbox_id = theirs.mailbox_id
    RETURNING w.mailbox_id
""")

ENROL = text("""
    -- Mailboxes that are followed and not known here yet.
    INSERT INTO mailwright.watches (mailbox_id, account)
    SELECT s.mailbox_id, s.account FROM mailwright.schedule AS s
    WHERE s.enabled AND NOT EXISTS (
        SELECT FROM mailwright.watches AS w WHERE w.mailbox_id = s.mailbox_id
    )
    ORDER BY s.mailbox_id LIMIT :limit
    ON CONFLICT (mailbox_id) DO NOTHING
""")

CLAIM = text("""
    -- Take free mailboxes, who waits longest first; index: watches_free. Credentials that were refused
    -- are left to the sync, whose lease sees to it that there is one probe. Of an account's connections
    -- all but one may wait for news; index: watches_account. Those of a host that is left alone are put off
    -- until some time after its next probe, which is the sync's.
    WITH free AS (
        SELECT w.mailbox_id, w.retry_at, s.account, s.host, b.retry_at AS probe_at,
               p.connections_per_account - 1 - (
            SELECT count(*) FROM mailwright.watches AS x WHERE x.account = s.account AND x.watcher IS NOT NULL
        ) AS room
        FROM mailwright.watches AS w
        JOIN mailwright.schedule AS s ON s.mailbox_id = w.mailbox_id
        JOIN mailwright.mailboxes AS m ON m.id = w.mailbox_id
        JOIN mailwright.providers AS p ON p.id = s.provider_id
        LEFT JOIN mailwright.breakers AS b
          ON b.protocol = 'imap' AND b.host = s.host AND b.opened_at IS NOT NULL
        WHERE w.watcher IS NULL AND w.retry_at <= now() AND s.enabled
          AND m.connected_at IS NOT NULL AND m.imap_refusals = 0
          AND (SELECT count(*) FROM mailwright.watches AS x
               WHERE x.account = s.account AND x.watcher IS NOT NULL) < p.connections_per_account - 1
        ORDER BY w.retry_at LIMIT :limit
    ), chosen AS (
        SELECT mailbox_id, account, host, probe_at, room,
               row_number() OVER (PARTITION BY account ORDER BY retry_at, mailbox_id) AS turn
        FROM free
    ), put_off AS (
        UPDATE mailwright.watches AS w
        SET retry_at = greatest(chosen.probe_at, now()) + (1 + random()) * interval '15 s'
        FROM chosen WHERE w.mailbox_id = chosen.mailbox_id AND chosen.probe_at IS NOT NULL
    )
    UPDATE mailwright.watches AS w SET watcher = :owner, account = chosen.account, connected_at = NULL
    FROM chosen WHERE w.mailbox_id = chosen.mailbox_id AND w.watcher IS NULL AND chosen.turn <= chosen.room
                  AND chosen.probe_at IS NULL
    RETURNING w.mailbox_id, chosen.host, w.failures
""")

CROWD = text("""
    -- How many there are to watch, and how many each of the other watchers can hold.
    SELECT (SELECT count(*) FROM mailwright.watches AS w JOIN mailwright.schedule AS s USING (mailbox_id)
            WHERE s.enabled) AS mailboxes,
           ARRAY(SELECT most FROM mailwright.watchers
                 WHERE until > clock_timestamp() AND owner <> :owner) AS others
""")

HELD = text("""
    -- What is still this watcher's to watch: not removed, paused, switched off, or taken by another.
    SELECT w.mailbox_id FROM mailwright.watches AS w JOIN mailwright.schedule AS s USING (mailbox_id)
    WHERE w.watcher = :owner AND s.enabled
""")

GIVE_BACK = text("""
    WITH ended AS (
        SELECT w.mailbox_id, e.failures, e.pause, e.error
        FROM mailwright.watches AS w
        JOIN unnest(cast(:mailboxes AS bigint[]), cast(:failures AS bigint[]), cast(:pauses AS float8[]),
                    cast(:errors AS text[])) AS e (mailbox_id, failures, pause, error)
          ON e.mailbox_id = w.mailbox_id
        WHERE w.watcher = :owner
        ORDER BY w.mailbox_id FOR UPDATE OF w
    )
    UPDATE mailwright.watches AS w
    SET watcher = NULL, connected_at = NULL, failures = ended.failures, last_error = ended.error,
        retry_at = now() + make_interval(secs => ended.pause)
    FROM ended WHERE w.mailbox_id = ended.mailbox_id
    RETURNING w.mailbox_id
""")

CONNECTED = text("""
    WITH ours AS (
        SELECT mailbox_id FROM mailwright.watches
        WHERE mailbox_id = ANY(:mailboxes) AND watcher = :owner ORDER BY mailbox_id FOR UPDATE
    )
    UPDATE mailwright.watches AS w SET connected_at = now(), last_error = NULL
    FROM ours WHERE w.mailbox_id = ours.mailbox_id
""")

BEHIND = text("""
    -- Whose INBOX, as the server described it, is not as the cursor has it; indexes:
    -- folders_present_key, folder_epochs_current_key.
    SELECT seen.mailbox_id
    FROM unnest(cast(:mailboxes AS bigint[]), cast(:uidvalidities AS bigint[]), cast(:uidnexts AS bigint[]),
                cast(:counts AS bigint[]), cast(:modseqs AS bigint[]))
         AS seen (mailbox_id, uidvalidity, uidnext, messages, modseq)
    LEFT JOIN mailwright.folders AS f
      ON f.mailbox_id = seen.mailbox_id AND f.wire_name = 'INBOX' AND f.gone_at IS NULL
    LEFT JOIN mailwright.folder_epochs AS e ON e.folder_id = f.id AND e.state = 'current'
    WHERE e.uidvalidity IS DISTINCT FROM seen.uidvalidity OR e.messages <> seen.messages
       OR e.uidnext IS DISTINCT FROM seen.uidnext OR e.modseq <> seen.modseq
    ORDER BY seen.mailbox_id
""")
