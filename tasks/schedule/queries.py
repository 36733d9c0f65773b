"""The SQL of the schedule."""

from sqlalchemy import text

# Claims are made one at a time, so that caps are exact whatever the number of workers.
CLAIM_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mailwright.schedule.claim'))")

CLAIM_DUE = text("""
    -- Take due mailboxes of one lane, the oldest of each provider first, providers drawn by lot, so
    -- that none waits behind another's crowd. Either those whose sessions rest in this process, or the
    -- others, and of these not what another process had last and may come for.
    -- Indexes: schedule_due, schedule_leased.
    WITH busy AS MATERIALIZED (
        SELECT host, account FROM mailwright.schedule WHERE lease_until > now()
    ), of_hosts AS MATERIALIZED (
        SELECT host, count(*) AS n FROM busy GROUP BY host
    ), of_accounts AS MATERIALIZED (
        SELECT account, count(*) AS n FROM busy GROUP BY account
    ), due AS (
        SELECT s.mailbox_id, s.busy_host, s.busy_account, p.connections_per_host, p.connections_per_account,
               row_number() OVER (PARTITION BY s.provider_id ORDER BY s.next_poll_at) AS turn,
               row_number() OVER (PARTITION BY s.host ORDER BY s.next_poll_at) AS of_host,
               row_number() OVER (PARTITION BY s.account ORDER BY s.next_poll_at) AS of_account
        FROM mailwright.providers AS p
        CROSS JOIN LATERAL (
            SELECT d.mailbox_id, d.provider_id, d.next_poll_at, d.host, d.account,
                   coalesce(h.n, 0) AS busy_host, coalesce(a.n, 0) AS busy_account
            FROM mailwright.schedule AS d
            LEFT JOIN of_hosts AS h ON h.host = d.host
            LEFT JOIN of_accounts AS a ON a.account = d.account
            WHERE d.provider_id = p.id AND d.lane = :lane AND d.enabled AND d.next_poll_at <= now()
              AND (d.lease_until IS NULL OR d.lease_until <= now())
              AND coalesce(h.n, 0) < p.connections_per_host
              AND coalesce(a.n, 0) < p.connections_per_account
              AND CASE WHEN :resting THEN d.mailbox_id = ANY(cast(:held AS bigint[]))
                  ELSE d.mailbox_id <> ALL(cast(:held AS bigint[]))
                       AND (d.last_owner IS NULL OR d.last_owner = :owner OR d.asked OR d.lane <> 'sync'
                            OR d.next_poll_at <= now() - make_interval(secs => :head_start))
                  END
            ORDER BY d.next_poll_at
            LIMIT :limit
        ) AS s
    ), chosen AS (
        SELECT s.mailbox_id
        FROM mailwright.schedule AS s
        JOIN due USING (mailbox_id)
        WHERE due.of_host + due.busy_host <= due.connections_per_host
          AND due.of_account + due.busy_account <= due.connections_per_account
        ORDER BY due.turn, random()
        LIMIT :limit
        FOR UPDATE OF s SKIP LOCKED
    )
    UPDATE mailwright.schedule AS s
    SET lease_owner = :owner, lease_token = s.lease_token + 1, last_owner = :owner,
        lease_until = clock_timestamp() + make_interval(secs => :lease), last_started_at = clock_timestamp(),
        crashes = CASE WHEN s.lease_until IS NULL THEN 0 ELSE s.crashes + 1 END, asked = false
    FROM chosen, mailwright.schedule AS old
    WHERE s.mailbox_id = chosen.mailbox_id AND old.mailbox_id = s.mailbox_id
    RETURNING s.mailbox_id, s.lease_token, s.lane, s.interval_seconds, s.failures, s.crashes,
              old.asked, s.last_started_at
""")

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
RENEW = {
    table: text(f"""
        WITH ours AS (
            SELECT s.mailbox_id
            FROM mailwright.{table} AS s
            JOIN unnest(cast(:mailboxes AS bigint[]), cast(:tokens AS bigint[])) AS held (mailbox_id, token)
              ON s.mailbox_id = held.mailbox_id AND s.lease_token = held.token
            WHERE s.lease_owner IS NOT NULL
            ORDER BY s.mailbox_id
            FOR UPDATE OF s
        )
        UPDATE mailwright.{table} AS s SET lease_until = clock_timestamp() + make_interval(secs => :lease)
        FROM ours WHERE s.mailbox_id = ours.mailbox_id
    """)  # noqa: S608
    for table in ("schedule", "outbox_lanes")
}

FINISH = text("""
    -- Give the lease back after a sync that succeeded; a wish that came meanwhile keeps the mailbox due.
    UPDATE mailwright.schedule
    SET lease_owner = NULL, lease_until = NULL, lane = :lane, failures = 0, crashes = 0, last_error = NULL,
        interval_seconds = :interval, last_synced_at = clock_timestamp(),
        next_poll_at = CASE WHEN asked THEN now() ELSE now() + make_interval(secs => :pause) END
    WHERE mailbox_id = :mailbox_id AND lease_token = :token
""")

FINISH_MANY = text("""
    -- Give back mailboxes in which nothing changed, each due again after its pause.
    WITH ours AS (
        SELECT s.mailbox_id, done.interval_seconds, done.pause
        FROM mailwright.schedule AS s
        JOIN unnest(cast(:mailboxes AS bigint[]), cast(:tokens AS bigint[]), cast(:intervals AS float8[]),
                    cast(:pauses AS float8[])) AS done (mailbox_id, token, interval_seconds, pause)
          ON s.mailbox_id = done.mailbox_id AND s.lease_token = done.token
        WHERE s.lease_owner IS NOT NULL
        ORDER BY s.mailbox_id
        FOR UPDATE OF s
    )
    UPDATE mailwright.schedule AS s
    SET lease_owner = NULL, lease_until = NULL, failures = 0, crashes = 0, last_error = NULL,
        interval_seconds = ours.interval_seconds, last_synced_at = clock_timestamp(),
        next_poll_at = CASE WHEN s.asked THEN now() ELSE now() + make_interval(secs => ours.pause) END
    FROM ours WHERE s.mailbox_id = ours.mailbox_id
    RETURNING s.mailbox_id
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

HASTEN = text("""
    UPDATE mailwright.schedule SET next_poll_at = now() + make_interval(secs => :seconds)
    WHERE mailbox_id = :mailbox_id AND next_poll_at > now() + make_interval(secs => :seconds)
""")

SETTLED = text("""
    SELECT mailbox_id, lane, last_error, last_synced_at >= :since AS synced,
           last_failed_at >= :since AS failed
    FROM mailwright.schedule WHERE mailbox_id = ANY(:mailboxes)
""")
