"""The SQL of the queue. Times are the database's.

What runs for every few messages is written for the driver itself (``%(name)s``) and sent as a pipeline;
all else is SQLAlchemy's ``text``.
"""

from sqlalchemy import text

from tasks.events import RECORD

# Claims of lanes are made one at a time, so that caps are exact whatever the number of workers.
CLAIM_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mailwright.outbound.claim'))")

FOLD_WAKES = text("""
    -- What the doors, and people's wishes, left since the last claim; index: outbox_wakes_pkey.
    WITH heard AS (
        DELETE FROM mailwright.outbox_wakes WHERE id IN (
            SELECT id FROM mailwright.outbox_wakes ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED
        ) RETURNING mailbox_id, due_at
    ), first AS (
        SELECT mailbox_id, min(due_at) AS due_at FROM heard GROUP BY mailbox_id
    )
    UPDATE mailwright.outbox_lanes AS l
    SET next_due_at = least(l.next_due_at, first.due_at),
        none_due_before = least(l.none_due_before, first.due_at)
    FROM first
    WHERE l.mailbox_id = first.mailbox_id
      AND (l.next_due_at IS NULL OR l.next_due_at > first.due_at OR l.none_due_before > first.due_at)
""")

CLAIM_LANE = text("""
    -- The provider that waited longest, and its lane that is due longest, within the caps of host and
    -- account; a lane whose last owner keeps connections open belongs to that owner until they close.
    -- Providers whose host is left alone, or has its share of this process, are passed over; what comes
    -- after a pause is one probe. Indexes: breakers_pkey, outbox_lanes_due, outbox_lanes_busy.
    WITH busy AS MATERIALIZED (
        SELECT mailbox_id, host, account, connections FROM mailwright.outbox_lanes
        WHERE connections > 0 AND greatest(lease_until, resting_until) > now()
    ), due AS (
        SELECT d.mailbox_id, d.room, t.served_at, d.next_due_at
        FROM mailwright.providers AS p
        LEFT JOIN mailwright.outbox_turns AS t ON t.provider_id = p.id
        LEFT JOIN mailwright.breakers AS b ON b.protocol = 'smtp' AND b.host = lower(p.smtp_host)
        CROSS JOIN LATERAL (
            SELECT l.mailbox_id, l.next_due_at, room.connections AS room
            FROM mailwright.outbox_lanes AS l
            CROSS JOIN LATERAL (
                SELECT least(
                    p.connections_per_host - coalesce(sum(b.connections) FILTER (WHERE b.host = l.host), 0),
                    p.connections_per_account
                        - coalesce(sum(b.connections) FILTER (WHERE b.account = l.account), 0)
                ) AS connections
                FROM busy AS b WHERE b.mailbox_id <> l.mailbox_id
            ) AS room
            WHERE l.provider_id = p.id AND l.enabled AND l.next_due_at <= now()
              AND (l.paused_at IS NULL OR l.paused_until <= now())
              AND (l.lease_until IS NULL OR l.lease_until <= now())
              AND (l.resting_until IS NULL OR l.resting_until <= now() OR l.last_owner = :owner)
              AND room.connections > 0
            ORDER BY l.next_due_at
            LIMIT 1
            FOR UPDATE OF l SKIP LOCKED
        ) AS d
        WHERE (b.opened_at IS NULL OR b.retry_at <= now() AND coalesce(b.probe_until <= now(), true))
          AND lower(p.smtp_host) <> ALL(cast(:full AS text[]))
        ORDER BY t.served_at NULLS FIRST, d.next_due_at
        LIMIT 1
    ), probed AS (
        UPDATE mailwright.breakers AS b SET probe_until = clock_timestamp() + make_interval(secs => :lease)
        FROM due JOIN mailwright.outbox_lanes AS l USING (mailbox_id)
        WHERE b.protocol = 'smtp' AND b.host = l.host AND b.opened_at IS NOT NULL
    ), turn AS (
        INSERT INTO mailwright.outbox_turns (provider_id, served_at)
        SELECT l.provider_id, clock_timestamp() FROM due JOIN mailwright.outbox_lanes AS l USING (mailbox_id)
        ON CONFLICT (provider_id) DO UPDATE SET served_at = excluded.served_at
    )
    UPDATE mailwright.outbox_lanes AS l
    SET lease_owner = :owner, last_owner = :owner, lease_token = l.lease_token + 1,
        lease_until = clock_timestamp() + make_interval(secs => :lease),
        connections = least(due.room, CASE WHEN b.opened_at IS NULL THEN cast(:most AS bigint) ELSE 1 END),
        resting_until = NULL
    FROM due
    JOIN mailwright.outbox_lanes AS o USING (mailbox_id)
    LEFT JOIN mailwright.breakers AS b ON b.protocol = 'smtp' AND b.host = o.host
    WHERE l.mailbox_id = due.mailbox_id
    RETURNING l.mailbox_id, l.lease_token, l.connections, l.failures, l.host,
              o.lease_owner IS NOT NULL AS died,
              coalesce(b.faults, 0) > 0 AS doubted, b.opened_at IS NOT NULL AS probe
""")

LANES_DUE = text("""
    SELECT EXISTS (SELECT FROM mailwright.outbox_wakes WHERE due_at <= now())
        OR EXISTS (
            SELECT FROM mailwright.providers AS p
            LEFT JOIN mailwright.breakers AS b ON b.protocol = 'smtp' AND b.host = lower(p.smtp_host)
            WHERE (b.opened_at IS NULL OR b.retry_at <= now() AND coalesce(b.probe_until <= now(), true))
              AND EXISTS (SELECT FROM mailwright.outbox_lanes AS l
                          WHERE l.provider_id = p.id AND l.enabled AND l.next_due_at <= now()
                            AND (l.paused_at IS NULL OR l.paused_until <= now())
                            AND (l.lease_until IS NULL OR l.lease_until <= now()))
        )
""")

# The first statement of every commit of a lane's work. A share lock: several connections of one lane
# commit side by side, a taker of the lease waits for them. What follows is planned once for a connection's
# life, perhaps while the tables are small and no statistics tell how they grow. So that it finds each row by
# its key, scans and joins of whole tables are off, and a state is compared in a way no partial index knows.
FENCE = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true)
    FROM mailwright.outbox_lanes
    WHERE mailbox_id = %(mailbox_id)s AND lease_token = %(token)s AND lease_owner IS NOT NULL FOR SHARE
"""

RENEW = text("""
    UPDATE mailwright.outbox_lanes SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE mailbox_id = :mailbox_id AND lease_token = :token AND lease_owner IS NOT NULL
    RETURNING 1
""")

# Locked by a statement before the one that looks what waits: a message that comes after that look has its
# wake folded after it too, and one whose wake is folded already is seen by it.
HOLD_LANE = text("""
    SELECT FROM mailwright.outbox_lanes WHERE mailbox_id = :mailbox_id AND lease_token = :token FOR UPDATE
""")

RELEASE = text("""
    -- Give the lease back; `outbox_next` tells when the lane is due again: where that is now, behind those
    -- that wait already, however old its mail is. `pause` (seconds) puts it off.
    -- What the host is to blame for is no failure of the lane's.
    WITH first AS MATERIALIZED (
        SELECT min(o.due_at) AS due_at FROM mailwright.outbox AS o
        WHERE o.mailbox_id = :mailbox_id AND o.state IN ('queued', 'deferred') AND o.due_at >= (
            SELECT none_due_before FROM mailwright.outbox_lanes WHERE mailbox_id = :mailbox_id
        )
    )
    UPDATE mailwright.outbox_lanes AS l
    SET lease_owner = NULL, lease_until = NULL, served_at = clock_timestamp(),
        connections = :resting,
        resting_until = CASE WHEN :resting > 0 THEN clock_timestamp() + make_interval(secs => :rest) END,
        failures = CASE WHEN cast(:error AS text) IS NULL THEN 0
                        WHEN :blameless THEN failures ELSE failures + 1 END,
        last_error = :error,
        next_due_at = greatest(
            CASE WHEN first.due_at <= clock_timestamp() THEN clock_timestamp() ELSE first.due_at END,
            CASE WHEN :pause > 0 THEN clock_timestamp() + make_interval(secs => :pause) END,
            cast(:not_before AS timestamptz)
        ),
        none_due_before = coalesce(first.due_at, now())
    FROM first
    WHERE l.mailbox_id = :mailbox_id AND l.lease_token = :token
""")

LEFTOVERS = text("""
    -- What a dead lease left in hand; index: outbox_in_hand.
    SELECT o.id, o.uid, o.state, a.uid AS attempt, d.attempt_uid IS NOT NULL AS started, d.outcome,
           o.lease_token, o.message_id, m.uid AS mailbox, p.sent_copy,
           o.witness IS DISTINCT FROM (
               SELECT witness FROM mailwright.data_started
               WHERE attempt_uid = '00000000-0000-0000-0000-000000000000'
           ) AS blind
    FROM mailwright.outbox AS o
    JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    JOIN mailwright.providers AS p ON p.id = m.provider_id
    LEFT JOIN mailwright.attempts AS a ON a.outbound_id = o.id AND a.ended_at IS NULL
    LEFT JOIN mailwright.data_started AS d ON d.attempt_uid = a.uid
    WHERE o.mailbox_id = :mailbox_id AND o.state = 'armed'
    ORDER BY o.id
""")

NEW_WITNESS = text("""
    INSERT INTO mailwright.data_started (attempt_uid, witness)
    VALUES ('00000000-0000-0000-0000-000000000000', gen_random_uuid())
    ON CONFLICT DO NOTHING
""")

ALLOWANCE = """
    -- How many more may go this minute; the fenced row is locked, so that the count is exact.
    SELECT CASE WHEN window_start > now() - interval '1 minute' THEN window_sent ELSE 0 END AS used,
           CASE WHEN window_start > now() - interval '1 minute' THEN window_start + interval '1 minute' END
               AS again
    FROM mailwright.outbox_lanes WHERE mailbox_id = %(mailbox_id)s AND lease_token = %(token)s FOR UPDATE
"""

USE_ALLOWANCE = """
    UPDATE mailwright.outbox_lanes
    SET window_sent =
            %(taken)s + CASE WHEN window_start > now() - interval '1 minute' THEN window_sent ELSE 0 END,
        window_start = CASE WHEN window_start > now() - interval '1 minute' THEN window_start ELSE now() END
    WHERE mailbox_id = %(mailbox_id)s AND lease_token = %(token)s
"""

_CLAIM = """
    -- The next messages of one mailbox, from the head or behind a place; index: outbox_due.
    SELECT o.id, o.uid, o.state, o.priority, o.due_at, o.envelope_from, o.message_id, o.smtputf8,
           o.eight_bit, o.attempts, o.expires_at <= now() AS expired, o.cancel_asked, o.created_at,
           coalesce(o.size, pg_column_size(o.request)) AS size,
           o.request IS NOT NULL AS uncomposed,
           EXISTS (SELECT FROM mailwright.suppressions AS s
                   WHERE s.mailbox_id = %(mailbox_id)s OR s.mailbox_id IS NULL) AS suppressing,
           CASE WHEN pg_column_size(o.request) < 100000 THEN o.request END AS request
    FROM mailwright.outbox AS o
    WHERE o.mailbox_id = %(mailbox_id)s AND o.state IN ('queued', 'deferred') AND o.due_at <= now() {behind}
      AND o.due_at >= (SELECT l.none_due_before FROM mailwright.outbox_lanes AS l
                       WHERE l.mailbox_id = %(mailbox_id)s)
      AND o.id <> ALL(%(in_hand)s::bigint[])
      AND NOT EXISTS (SELECT FROM mailwright.outbox_lanes AS l WHERE l.mailbox_id = %(mailbox_id)s
                      AND l.paused_at IS NOT NULL AND coalesce(l.paused_until > now(), true))
    ORDER BY o.priority DESC, o.due_at, o.id
    LIMIT %(batch)s
"""
CLAIM = _CLAIM.format(behind="")
CLAIM_BEHIND = _CLAIM.format(
    behind="AND o.priority = %(priority)s AND (o.due_at, o.id) > (%(due_at)s, %(id)s)"
)

REQUEST = text("SELECT request FROM mailwright.outbox WHERE id = :id")

CONTENT = text("""
    SELECT c.outbound_id, c.content,
           (SELECT array_agg(r.address ORDER BY r.ordinal) FROM mailwright.outbox_recipients AS r
            WHERE r.outbound_id = c.outbound_id AND r.state IN ('pending', 'deferred')) AS recipients,
           EXISTS (SELECT FROM mailwright.outbox_recipients AS r
                   WHERE r.outbound_id = c.outbound_id AND r.state = 'sent') AS already_sent
    FROM mailwright.outbox_content AS c WHERE c.outbound_id = ANY(:ids)
""")

ARM = """
    -- Armed, unless someone's wish came before; the bytes and recipients of those that are new are stored,
    -- once and for ever. Arrays of bytes go binary, so this needs no COPY: one statement, one round trip.
    WITH taken AS (
        UPDATE mailwright.outbox AS o
        SET state = 'armed', lease_token = %(token)s, attempts = o.attempts + 1, request = NULL, witness = (
                SELECT d.witness FROM mailwright.data_started AS d
                WHERE d.attempt_uid = '00000000-0000-0000-0000-000000000000'
            ),
            envelope_from = a.envelope_from, message_id = a.message_id,
            subject = coalesce(a.subject, o.subject), size = a.size,
            smtputf8 = a.smtputf8, eight_bit = a.eight_bit
        FROM jsonb_to_recordset(%(group)s::jsonb) AS a (
            id bigint, attempt uuid, envelope_from text, message_id text, subject text, size bigint,
            smtputf8 boolean, eight_bit boolean
        )
        WHERE o.id = a.id AND o.state || '' IN ('queued', 'deferred') AND o.due_at <= now()
          AND NOT o.cancel_asked
        RETURNING o.id, o.attempts, a.attempt
    ), content AS (
        INSERT INTO mailwright.outbox_content (outbound_id, content)
        SELECT id, c.content FROM taken
        JOIN unnest(%(new)s::bigint[], %(contents)b::bytea[]) AS c (id, content) USING (id)
    ), recipients AS (
        INSERT INTO mailwright.outbox_recipients (outbound_id, ordinal, address, kind)
        SELECT id, r.ordinal, r.address, r.kind FROM taken
        JOIN unnest(%(of)s::bigint[], %(ordinals)s::bigint[], %(addresses)s::text[], %(kinds)s::text[])
            AS r (id, ordinal, address, kind) USING (id)
    )
    INSERT INTO mailwright.attempts (uid, outbound_id, number)
    SELECT attempt, id, attempts FROM taken
    RETURNING outbound_id
"""

# Recipients that are not sent to: of messages armed with the others, or ended as nobody is left.
BLOCK = """
    UPDATE mailwright.outbox_recipients AS r SET state = 'failed', code = NULL, reply = b.reply
    FROM jsonb_to_recordset(%(blocked)s::jsonb) AS b (id bigint, address text, reply text)
    JOIN mailwright.outbox AS o ON o.id = b.id AND o.state IN ('armed', 'failed', 'sent')
    WHERE r.outbound_id = b.id AND r.address = b.address AND r.state IN ('pending', 'deferred')
"""

# A DATA begins ($1), and the one before it on this connection ($2) is over ($3): one commit tells both.
STARTED = b"""
    WITH over AS (
        UPDATE mailwright.data_started SET outcome = $3::jsonb WHERE attempt_uid = $2::uuid
    )
    INSERT INTO mailwright.data_started (attempt_uid) VALUES ($1::uuid) ON CONFLICT DO NOTHING
"""

SETTLE = f"""
    -- What attempts came to, with its events; what another commit settled before is not told again.
    WITH over AS (
        SELECT * FROM jsonb_to_recordset(%(over)s::jsonb) AS s (
            id bigint, attempt uuid, state text, pause float8, code bigint, reply text, outcome text,
            stage text, waited bigint, dialogue jsonb, told jsonb, all_sent boolean
        )
    ), tried AS (
        UPDATE mailwright.attempts AS a
        SET ended_at = clock_timestamp(), outcome = over.outcome, stage = over.stage, code = over.code,
            reply = over.reply, waited_ms = over.waited, dialogue = over.dialogue,
            told = CASE WHEN over.all_sent THEN NULL ELSE over.told END
        FROM over WHERE a.uid = over.attempt
    ), forgotten AS (
        DELETE FROM mailwright.data_started WHERE attempt_uid = ANY(%(attempts)s::uuid[])
    ), settled AS (
        UPDATE mailwright.outbox AS o
        SET state = over.state, last_code = over.code, last_reply = over.reply, witness = NULL,
            lease_token = NULL,
            due_at = CASE WHEN over.pause IS NULL OR o.cancel_asked THEN o.due_at
                     ELSE least(o.expires_at, clock_timestamp() + make_interval(secs => over.pause)) END,
            ended_at = CASE WHEN over.state IN ('sent', 'failed') THEN clock_timestamp() END
        FROM over
        WHERE o.id = over.id AND o.state || '' = 'armed' AND o.lease_token = %(token)s
        RETURNING o.id, o.due_at
    ), of_recipients AS (
        UPDATE mailwright.outbox_recipients AS r SET state = t.state, code = t.code, reply = t.reply
        FROM settled JOIN over USING (id)
        CROSS JOIN jsonb_to_recordset(over.told) AS t (address text, state text, code bigint, reply text)
        WHERE r.outbound_id = settled.id AND r.address = t.address
          AND r.state IN ('pending', 'deferred')
    ), events AS (
        {RECORD}
        SELECT e.type, %(mailbox_id)s, e.subject,
               CASE WHEN e.waits THEN e.data || jsonb_build_object('next_try_at', settled.due_at)
                    ELSE e.data END,
               e.subject
        FROM jsonb_to_recordset(%(events)s::jsonb) AS e (
            id bigint, n bigint, type text, subject text, data jsonb, waits boolean
        )
        JOIN settled USING (id) ORDER BY e.n
    )
    SELECT id FROM settled
"""  # noqa: S608  the parts are ours

ASK_SENT_COPY = """
    INSERT INTO mailwright.commands (mailbox_id, kind, outbound_id)
    SELECT %(mailbox_id)s, 'append_sent', id FROM unnest(cast(%(ids)s AS bigint[])) AS id
    ON CONFLICT (kind, outbound_id) DO NOTHING
"""

# What sent replies answer is marked as answered, where no copy in Sent will tell of it (where one does, the
# sync marks it). Only the header is looked at, and no more of it than 32 KiB.
MARK_ANSWERED = """
    WITH answered AS (
        SELECT (regexp_match(
            split_part(encode(substring(c.content FROM 1 FOR 32768), 'escape'), E'\\r\\n\\r\\n', 1),
            '(?:^|\\n)in-reply-to:\\s*(<[^\\s<>]+>)', 'i'
        ))[1] AS name
        FROM mailwright.outbox_content AS c WHERE c.outbound_id = ANY(%(ids)s)
    )
    INSERT INTO mailwright.commands (mailbox_id, kind, message_id, folder_id, add_flags, requested_by)
    SELECT DISTINCT m.mailbox_id, 'mark', m.id, e.folder_id, ARRAY['\\Answered'], 'system'
    FROM answered
    JOIN mailwright.messages AS m ON m.mailbox_id = %(mailbox_id)s AND m.message_id = answered.name
    JOIN mailwright.places AS p ON p.message_id = m.id
    JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
    WHERE m.state = 'present' AND NOT '\\Answered' = ANY(p.flags)
    RETURNING 1
"""

# Attempts that never reached DATA are taken back with their message.
GIVE_BACK = text("""
    WITH back AS (
        UPDATE mailwright.outbox AS o
        SET state = 'queued', lease_token = NULL, witness = NULL,
            attempts = o.attempts - 1
        WHERE o.id = ANY(:ids) AND o.lease_token = :token AND o.state = 'armed'
        RETURNING o.id
    )
    DELETE FROM mailwright.attempts AS a USING back
    WHERE a.outbound_id = back.id AND a.ended_at IS NULL
""")

END = text("""
    -- Ends without an attempt: expired, cancelled, or found not to be sendable.
    UPDATE mailwright.outbox AS o
    SET state = e.state, error_code = e.code, last_reply = coalesce(e.reply, o.last_reply),
        lease_token = NULL, ended_at = clock_timestamp()
    FROM unnest(cast(:ids AS bigint[]), cast(:states AS text[]), cast(:codes AS text[]),
                cast(:replies AS text[])) AS e (id, state, code, reply)
    WHERE o.id = e.id AND o.state = ANY(:sources)
    RETURNING o.id
""")

RECOVER = text("""
    -- Leftovers of dead leases: back to the queue, or into doubt.
    WITH left_over AS (
        SELECT * FROM unnest(cast(:ids AS bigint[]), cast(:states AS text[])) AS r (id, state)
    ), doubtful AS (
        UPDATE mailwright.attempts AS a
        SET ended_at = clock_timestamp(), outcome = 'uncertain',
            reply = 'the worker ended before the server''s answer was stored',
            told = (
                SELECT jsonb_agg(jsonb_build_object('address', r.address, 'state', 'uncertain'))
                FROM mailwright.outbox_recipients AS r
                WHERE r.outbound_id = a.outbound_id AND r.state IN ('pending', 'deferred')
            )
        FROM left_over WHERE a.outbound_id = left_over.id AND a.ended_at IS NULL
                         AND left_over.state = 'uncertain'
    ), unstarted AS (
        DELETE FROM mailwright.attempts AS a USING left_over
        WHERE a.outbound_id = left_over.id AND a.ended_at IS NULL AND left_over.state = 'queued'
    ), of_recipients AS (
        UPDATE mailwright.outbox_recipients AS r SET state = 'uncertain'
        FROM left_over WHERE r.outbound_id = left_over.id AND left_over.state = 'uncertain'
                         AND r.state IN ('pending', 'deferred')
    )
    UPDATE mailwright.outbox AS o
    SET state = left_over.state, lease_token = NULL, witness = NULL,
        attempts = o.attempts - (left_over.state = 'queued')::int,
        last_reply = CASE WHEN left_over.state = 'uncertain'
                     THEN 'the worker ended before the server''s answer was stored' ELSE o.last_reply END
    FROM left_over WHERE o.id = left_over.id
""")

FORGET_STARTED = text("DELETE FROM mailwright.data_started WHERE attempt_uid = ANY(:attempts)")
