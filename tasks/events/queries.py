"""The SQL of the event log."""

from sqlalchemy import text

LAST_POSITION = text("""
    INSERT INTO mailwright.sinks AS s (name, position) VALUES ('relay', 0)
    ON CONFLICT (name) DO UPDATE SET position = s.position RETURNING position
""")

GIVE_POSITIONS = text("""
    -- Move what is visible into the log, in the order of ids; positions follow :last without gaps.
    WITH taken AS (
        DELETE FROM mailwright.events_pending
        WHERE id IN (SELECT id FROM mailwright.events_pending ORDER BY id LIMIT :limit)
        RETURNING id, uid, type, mailbox_id, subject, data, correlation, at
    )
    INSERT INTO mailwright.events (position, uid, type, mailbox_id, subject, data, correlation, at)
    SELECT :last + row_number() OVER (ORDER BY id), uid, type, mailbox_id, subject, data, correlation, at
    FROM taken
""")

SET_POSITION = text("""
    UPDATE mailwright.sinks SET position = :position, failures = 0, last_error = NULL, updated_at = now()
    WHERE name = :name
""")

SINK_POSITION = text("""
    INSERT INTO mailwright.sinks AS s (name) VALUES (:name)
    ON CONFLICT (name) DO UPDATE SET position = s.position RETURNING position
""")

SINK_FAILED = text("""
    UPDATE mailwright.sinks SET failures = failures + 1, last_error = :error, updated_at = now()
    WHERE name = :name
""")

AFTER = text("""
    -- A page of the log; index: the primary key.
    SELECT e.position, e.uid, e.type, e.mailbox_id, e.subject, e.data, e.correlation, e.at
    FROM mailwright.events AS e
    WHERE e.position > :after AND (cast(:mailbox_id AS bigint) IS NULL OR e.mailbox_id = :mailbox_id)
      AND (cast(:types AS text[]) IS NULL OR e.type = ANY(:types))
    ORDER BY e.position LIMIT :limit
""")

TAKE_LEASE = text("""
    INSERT INTO mailwright.leases AS l (name, owner, token, until)
    VALUES (:name, :owner, 1, clock_timestamp() + make_interval(secs => :seconds))
    ON CONFLICT (name) DO UPDATE
    SET owner = excluded.owner, until = excluded.until,
        token = l.token + CASE WHEN l.owner = excluded.owner THEN 0 ELSE 1 END
    WHERE l.owner = excluded.owner OR l.until <= clock_timestamp()
    RETURNING token
""")

CHECK_LEASE = text("""
    SELECT token FROM mailwright.leases WHERE name = :name AND owner = :owner AND token = :token FOR UPDATE
""")

DROP_LEASE = text("DELETE FROM mailwright.leases WHERE name = :name AND owner = :owner")
