"""The SQL of the schedule."""

from sqlalchemy import TextClause, text

# Claims are made one at a time, so that caps are exact whatever the number of workers.
CLAIM_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mailwright.schedule.claim'))")

_BUSY = """
    busy AS MATERIALIZED (
        SELECT host, account FROM mailwright.schedule WHERE lease_until > now()
    ), of_hosts AS MATERIALIZED (
        SELECT host, count(*) AS n FROM busy GROUP BY host
    ), of_accounts AS MATERIALIZED (
        SELECT account, count(*) AS n FROM busy GROUP BY account
    )
"""

# A host that is left alone has room for one more than it has: the probe.
_ROOM = """
    SELECT CASE WHEN b.opened_at IS NULL THEN p.connections_per_host
           ELSE 1 + (SELECT coalesce(sum(n), 0) FROM of_hosts WHERE host = b.host) END AS of_host
    WHERE (b.opened_at IS NULL OR b.retry_at <= now() AND coalesce(b.probe_until <= now(), true))
      AND lower(p.imap_host) <> ALL(cast(:full AS text[]))
"""

_DUE = """
    SELECT d.mailbox_id, d.provider_id, d.next_poll_at, d.host, d.account,
           coalesce(h.n, 0) AS busy_host, room.of_host AS connections_per_host,
           coalesce(a.n, 0) AS busy_account, p.connections_per_account
    FROM mailwright.schedule AS d
    LEFT JOIN of_hosts AS h ON h.host = d.host
    LEFT JOIN of_accounts AS a ON a.account = d.account
    WHERE d.provider_id = p.id AND d.lane = :lane AND d.enabled AND d.next_poll_at <= now()
      AND (d.lease_until IS NULL OR d.lease_until <= now())
      AND coalesce(h.n, 0) < room.of_host
      AND coalesce(a.n, 0) < p.connections_per_account
"""

# Those whose sessions rest in this process. Index: schedule_pkey.
_RESTING = f"""
    SELECT due.*
    FROM unnest(cast(:held AS bigint[])) AS held (mailbox_id)
    JOIN mailwright.schedule AS s USING (mailbox_id)
    JOIN mailwright.providers AS p ON p.id = s.provider_id
    LEFT JOIN mailwright.breakers AS b ON b.protocol = 'imap' AND b.host = lower(p.imap_host)
    CROSS JOIN LATERAL ({_ROOM}) AS room
    CROSS JOIN LATERAL ({_DUE} AND d.mailbox_id = held.mailbox_id) AS due
"""  # noqa: S608  all of it is ours

# The others, but not what another process had last and may come for: of each provider the oldest, providers
# drawn by lot. Who wants one looks no further than four that it could have. Index: schedule_due.
_OTHERS = f"""
    SELECT due.*
    FROM (SELECT * FROM mailwright.providers ORDER BY random()) AS p
    LEFT JOIN mailwright.breakers AS b ON b.protocol = 'imap' AND b.host = lower(p.imap_host)
    CROSS JOIN LATERAL ({_ROOM}) AS room
    CROSS JOIN LATERAL (
        {_DUE} AND d.mailbox_id <> ALL(cast(:held AS bigint[]))
               AND (d.last_owner IS NULL OR d.last_owner = :owner OR d.asked OR d.lane <> 'sync'
                    OR d.next_poll_at <= now() - make_interval(secs => :head_start))
        ORDER BY d.next_poll_at
        LIMIT :limit
    ) AS due
    LIMIT CASE WHEN cast(:limit AS integer) = 1 THEN 4 END
"""  # noqa: S608


def _claim(candidates: str) -> TextClause:
    """Take due mailboxes of one lane, the oldest of each provider first, so that none waits behind another's
    crowd. Providers whose host is left alone are passed over as one; what comes after its pause is one probe.
    So are those on hosts that hold their share of this process (`full`). Indexes: breakers_pkey,
    schedule_leased."""
    return text(f"""
        WITH {_BUSY}, due AS (
            SELECT *, row_number() OVER (PARTITION BY provider_id ORDER BY next_poll_at) AS turn,
                   row_number() OVER (PARTITION BY host ORDER BY next_poll_at) AS of_host,
                   row_number() OVER (PARTITION BY account ORDER BY next_poll_at) AS of_account
            FROM ({candidates}) AS found
        ), chosen AS (
            SELECT s.mailbox_id
            FROM mailwright.schedule AS s
            JOIN due USING (mailbox_id)
            WHERE due.of_host + due.busy_host <= due.connections_per_host
              AND due.of_account + due.busy_account <= due.connections_per_account
            ORDER BY due.turn, random()
            LIMIT :limit
            FOR UPDATE OF s SKIP LOCKED
        ), probed AS (
            UPDATE mailwright.breakers AS b
            SET probe_until = clock_timestamp() + make_interval(secs => :lease)
            FROM chosen JOIN mailwright.schedule AS s USING (mailbox_id)
            WHERE b.protocol = 'imap' AND b.host = s.host AND b.opened_at IS NOT NULL
        )
        UPDATE mailwright.schedule AS s
        SET lease_owner = :owner, lease_token = s.lease_token + 1, last_owner = :owner,
            lease_until = clock_timestamp() + make_interval(secs => :lease),
            last_started_at = clock_timestamp(),
            crashes = CASE WHEN s.lease_until IS NULL THEN 0 ELSE s.crashes + 1 END, asked = false
        FROM chosen
        JOIN mailwright.schedule AS old USING (mailbox_id)
        LEFT JOIN mailwright.breakers AS b ON b.protocol = 'imap' AND b.host = old.host
        WHERE s.mailbox_id = chosen.mailbox_id
        RETURNING s.mailbox_id, s.lease_token, s.lane, s.interval_seconds, s.failures, s.crashes,
                  old.asked, s.last_started_at, s.host, coalesce(b.faults, 0) > 0 AS doubted,
                  b.opened_at IS NOT NULL AS probe
    """)  # noqa: S608


CLAIM_RESTING = _claim(_RESTING)
CLAIM_OTHERS = _claim(_OTHERS)

# Lock the leased row and renew it: the first statement of every commit of a leased engine.
FENCE = {
    table: text(f"""
        UPDATE mailwright.{table} SET lease_until = clock_timestamp() + make_interval(secs => :lease)
        WHERE mailbox_id = :mailbox_id AND lease_token = :token AND lease_owner IS NOT NULL
        RETURNING mailbox_id
    """)  # noqa: S608  both names are ours
    for table in ("schedule", "outbox_lanes")
}

# Whoever locks several rows takes them in the order of their mailboxes, or two would wait for each other.
# A row that a commit of ours has locked keeps the others waiting for nothing.
RENEW = {
    table: text(f"""
        WITH ours AS (
            SELECT s.mailbox_id
            FROM mailwright.{table} AS s
            JOIN unnest(cast(:mailboxes AS bigint[]), cast(:tokens AS bigint[])) AS held (mailbox_id, token)
              ON s.mailbox_id = held.mailbox_id AND s.lease_token = held.token
            WHERE s.lease_owner IS NOT NULL
            ORDER BY s.mailbox_id
            FOR UPDATE OF s SKIP LOCKED
        )
        UPDATE mailwright.{table} AS s SET lease_until = clock_timestamp() + make_interval(secs => :lease)
        FROM ours WHERE s.mailbox_id = ours.mailbox_id
        RETURNING s.mailbox_id
    """)  # noqa: S608
    for table in ("schedule", "outbox_lanes")
}

_DUE_AGAIN = """
    CASE WHEN s.asked THEN now() ELSE now() + make_interval(secs => CASE WHEN EXISTS (
        SELECT FROM mailwright.watches AS w JOIN mailwright.watchers AS r ON r.owner = w.watcher
        WHERE w.mailbox_id = s.mailbox_id AND w.connected_at IS NOT NULL AND r.until > now()
    ) THEN {watched} ELSE {pause} END) END
"""

FINISH = text(f"""
    -- Give the lease back after a sync that succeeded; a wish that came meanwhile keeps the mailbox due.
    -- Indexes: watches_pkey, watchers_pkey.
    UPDATE mailwright.schedule AS s
    SET lease_owner = NULL, lease_until = NULL, lane = :lane, failures = 0, crashes = 0, last_error = NULL,
        interval_seconds = :interval, last_synced_at = clock_timestamp(),
        next_poll_at = {_DUE_AGAIN.format(watched="cast(:watched AS float8)", pause="cast(:pause AS float8)")}
    WHERE mailbox_id = :mailbox_id AND lease_token = :token
""")  # noqa: S608  the parts are ours

FINISH_MANY = text(f"""
    -- Give back mailboxes in which nothing changed, each due again after its pause.
    -- Indexes: watches_pkey, watchers_pkey.
    WITH ours AS (
        SELECT s.mailbox_id, done.interval_seconds, done.pause, done.watched
        FROM mailwright.schedule AS s
        JOIN unnest(cast(:mailboxes AS bigint[]), cast(:tokens AS bigint[]), cast(:intervals AS float8[]),
                    cast(:pauses AS float8[]), cast(:watched AS float8[]))
             AS done (mailbox_id, token, interval_seconds, pause, watched)
          ON s.mailbox_id = done.mailbox_id AND s.lease_token = done.token
        WHERE s.lease_owner IS NOT NULL
        ORDER BY s.mailbox_id
        FOR UPDATE OF s
    )
    UPDATE mailwright.schedule AS s
    SET lease_owner = NULL, lease_until = NULL, failures = 0, crashes = 0, last_error = NULL,
        interval_seconds = ours.interval_seconds, last_synced_at = clock_timestamp(),
        next_poll_at = {_DUE_AGAIN.format(watched="ours.watched", pause="ours.pause")}
    FROM ours WHERE s.mailbox_id = ours.mailbox_id
    RETURNING s.mailbox_id
""")  # noqa: S608

UNWATCHED = text("""
    -- Poll as often as without push, beginning within a minute: many lose it at once when a watcher dies.
    WITH theirs AS (
        SELECT mailbox_id FROM mailwright.schedule
        WHERE mailbox_id = ANY(:mailboxes) AND failures = 0 AND next_poll_at > now()
        ORDER BY mailbox_id FOR UPDATE
    )
    UPDATE mailwright.schedule AS s
    SET next_poll_at = least(
        s.next_poll_at,
        greatest(now() + random() * interval '1 minute',
                 s.last_synced_at + make_interval(secs => s.interval_seconds))
    )
    FROM theirs WHERE s.mailbox_id = theirs.mailbox_id
""")

FAIL = text("""
    UPDATE mailwright.schedule
    SET lease_owner = NULL, lease_until = NULL, failures = failures + 1, last_error = :error,
        last_failed_at = clock_timestamp(),
        next_poll_at = greatest(next_poll_at, now() + make_interval(secs => :pause))
    WHERE mailbox_id = :mailbox_id AND lease_token = :token
""")

POSTPONE = text("""
    -- Give the lease back untried, due at :until or in an hour: no failure of the server's. Who waits for
    -- this sync is told why; a wish that came meanwhile keeps the mailbox due.
    UPDATE mailwright.schedule
    SET lease_owner = NULL, lease_until = NULL, crashes = 0, last_error = :reason,
        last_failed_at = clock_timestamp(),
        next_poll_at = CASE WHEN asked THEN now() ELSE
            greatest(now(), coalesce(cast(:until AS timestamptz), now() + interval '1 hour')) END
    WHERE mailbox_id = :mailbox_id AND lease_token = :token
""")

RELEASE = text("""
    -- Give the lease back with the work unfinished: due at once, for anyone.
    UPDATE mailwright.schedule
    SET lease_owner = NULL, lease_until = NULL, lane = :lane, crashes = 0, next_poll_at = now(),
        asked = asked OR :asked
    WHERE mailbox_id = :mailbox_id AND lease_token = :token
""")

ASK = text("""
    WITH wished AS (
        SELECT mailbox_id FROM mailwright.schedule
        WHERE mailbox_id = ANY(:mailboxes) AND enabled
        ORDER BY mailbox_id
        FOR UPDATE
    )
    UPDATE mailwright.schedule AS s SET asked = true, next_poll_at = least(next_poll_at, now()), lane = :lane
    FROM wished WHERE s.mailbox_id = wished.mailbox_id
    RETURNING s.mailbox_id
""")

FOLLOWED = text("""
    SELECT mailbox_id FROM mailwright.schedule WHERE mailbox_id = ANY(:mailboxes) AND enabled
""")

HASTEN = text("""
    UPDATE mailwright.schedule SET next_poll_at = now() + make_interval(secs => :seconds)
    WHERE mailbox_id = :mailbox_id AND next_poll_at > now() + make_interval(secs => :seconds)
""")

SETTLED = text("""
    -- What became of mailboxes since a time. Who waits for a host that nobody reaches has failed with it.
    SELECT s.mailbox_id, s.lane, coalesce(b.last_error, s.last_error) AS last_error,
           s.last_synced_at >= :since AS synced,
           s.last_failed_at >= :since OR b.host IS NOT NULL AS failed
    FROM mailwright.schedule AS s
    LEFT JOIN mailwright.breakers AS b
      ON b.protocol = 'imap' AND b.host = s.host AND b.opened_at IS NOT NULL AND b.retry_at > now()
    WHERE s.mailbox_id = ANY(:mailboxes)
""")

KNOW_HOST = text("""
    INSERT INTO mailwright.breakers (protocol, host) VALUES (:protocol, :host) ON CONFLICT DO NOTHING
""")
BREAKER = text("""
    SELECT faults, trips, opened_at, retry_at, clock_timestamp() AS now
    FROM mailwright.breakers WHERE protocol = :protocol AND host = :host FOR UPDATE
""")
SET_BREAKER = text("""
    UPDATE mailwright.breakers
    SET faults = :faults, trips = :trips, opened_at = :opened_at, retry_at = :retry_at, probe_until = NULL,
        last_error = :error
    WHERE protocol = :protocol AND host = :host
""")
CLOSE_BREAKER = text("""
    UPDATE mailwright.breakers
    SET faults = 0, trips = 0, opened_at = NULL, retry_at = NULL, probe_until = NULL, last_error = NULL
    WHERE protocol = :protocol AND host = :host
""")
END_PROBE = text("""
    UPDATE mailwright.breakers SET probe_until = NULL WHERE protocol = :protocol AND host = :host
""")
PROBE_NOW = text("""
    UPDATE mailwright.breakers SET retry_at = now()
    WHERE protocol = 'imap' AND opened_at IS NOT NULL AND retry_at > now()
      AND host IN (SELECT host FROM mailwright.schedule WHERE mailbox_id = ANY(:mailboxes))
""")
FORGET_HOSTS = text("DELETE FROM mailwright.breakers WHERE host = ANY(:hosts)")
NOTE_SLOW = text("""
    UPDATE mailwright.breakers SET slow_until = clock_timestamp() + make_interval(secs => :seconds)
    WHERE protocol = :protocol AND host = :host
""")

PROVIDERS_OF = {
    protocol: text(f"""
        SELECT uid, name FROM mailwright.providers
        WHERE lower({protocol}_host) = :host AND {switch} AND NOT disabled ORDER BY id
    """)  # noqa: S608  the names are ours
    for protocol, switch in (("imap", "receive"), ("smtp", "send"))
}

_LANES = {
    "imap": ("schedule", "next_poll_at", "NOT l.asked"),
    "smtp": ("outbox_lanes", "next_due_at", "true"),
}

OVERDUE = {
    protocol: text(f"""
        -- How many wait for a host; indexes: schedule_due, outbox_lanes_due.
        SELECT count(l.mailbox_id) AS waiting, clock_timestamp() AS now
        FROM mailwright.providers AS p
        JOIN mailwright.{table} AS l ON l.provider_id = p.id AND l.enabled AND l.{due} <= now()
        WHERE lower(p.{protocol}_host) = :host
    """)  # noqa: S608
    for protocol, (table, due, _) in _LANES.items()
}

SPREAD = {
    protocol: text(f"""
        -- Let a batch of them come back at any time within :window seconds; who is asked for comes at once.
        WITH overdue AS (
            SELECT l.mailbox_id
            FROM mailwright.providers AS p
            JOIN mailwright.{table} AS l ON l.provider_id = p.id
            WHERE lower(p.{protocol}_host) = :host AND l.enabled AND l.{due} <= :before
              AND l.lease_until IS NULL AND {which}
            ORDER BY l.mailbox_id LIMIT :batch FOR UPDATE OF l SKIP LOCKED
        )
        UPDATE mailwright.{table} AS l
        SET {due} = clock_timestamp() + random() * make_interval(secs => :window)
        FROM overdue WHERE l.mailbox_id = overdue.mailbox_id
        RETURNING 1
    """)  # noqa: S608
    for protocol, (table, due, which) in _LANES.items()
}
