"""The SQL of the commands."""

from sqlalchemy import text

DUE = text("""
    -- Commands of one mailbox that are due, oldest first, of each message only its first; index:
    -- commands_due. What was told long ago and never seen has ended. ``tried``: had their turn already.
    WITH believed AS (
        UPDATE mailwright.commands SET state = 'done', ended_at = now()
        WHERE mailbox_id = :mailbox_id AND state = 'told' AND due_at <= now()
    )
    SELECT c.id, c.kind, c.outbound_id, c.message_id, c.target_id, c.tries
    FROM mailwright.commands AS c
    WHERE c.mailbox_id = :mailbox_id AND c.state = 'queued' AND c.due_at <= now()
      AND c.id <> ALL(cast(:tried AS bigint[]))
      AND (c.message_id IS NULL OR NOT EXISTS (
          SELECT 1 FROM mailwright.commands AS e
          WHERE e.message_id = c.message_id AND e.state = 'queued' AND e.id < c.id
      ))
    ORDER BY c.id LIMIT 100
""")

COUNT_TRIES = text("""
    -- The next try, should this one die, comes a minute later and looks before it repeats anything.
    UPDATE mailwright.commands
    SET tries = tries + 1, due_at = now() + interval '1 minute', sent_at = now()
    WHERE id = ANY(:ids)
""")

CHANGES = text("""
    -- What commands about messages need to know, as it was before this try was counted.
    SELECT c.id, c.uid, c.kind, c.folder_id, c.target_id, c.add_flags, c.remove_flags, c.tries,
           c.sent_at IS NOT NULL AS sent, m.id AS message_id, m.uid AS message_uid, m.state AS message_state,
           m.message_id AS name, m.size, m.digest, p.places
    FROM mailwright.commands AS c
    JOIN mailwright.messages AS m ON m.id = c.message_id
    LEFT JOIN LATERAL (
        SELECT json_agg(json_build_object(
                   'folder_id', f.id, 'folder', f.name, 'uid', l.imap_uid, 'flags', l.flags
               ) ORDER BY f.id, l.imap_uid) AS places
        FROM mailwright.places AS l
        JOIN mailwright.folder_epochs AS e ON e.id = l.epoch_id AND e.state = 'current'
        JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
        WHERE l.message_id = m.id
    ) AS p ON true
    WHERE c.id = ANY(:ids) ORDER BY c.id
""")

APPEND = text("""
    SELECT target_id, add_flags, content FROM mailwright.commands WHERE id = :id
""")

END = text("""
    UPDATE mailwright.commands
    SET state = :state, last_error = :error, ended_at = clock_timestamp(), content = NULL
    WHERE id = ANY(:ids) AND state = 'queued' RETURNING id
""")

TOLD = text("""
    -- The server said OK; what it shows is awaited, for an hour at most.
    UPDATE mailwright.commands SET state = 'told', last_error = :error, due_at = now() + interval '1 hour'
    WHERE id = ANY(:ids) AND state = 'queued'
""")

SEEN = text("""
    -- What was told is seen.
    UPDATE mailwright.commands SET state = 'done', ended_at = clock_timestamp()
    WHERE message_id = ANY(:message_ids) AND state = 'told' AND kind = ANY(:kinds)
""")

DEFER = text("""
    -- Each try doubles the pause, at most half an hour. ``undone``: those of which nothing was ever done.
    UPDATE mailwright.commands
    SET last_error = :error, due_at = now() + make_interval(secs => least(1800, 30 * power(2, tries))),
        sent_at = CASE WHEN id = ANY(cast(:undone AS bigint[])) THEN NULL ELSE sent_at END
    WHERE id = ANY(:ids) AND state = 'queued'
""")

UNTRIED = text("""
    -- Not begun after all: the count is taken back, and the doubt unless it was there before.
    UPDATE mailwright.commands AS c
    SET tries = greatest(0, c.tries - 1), sent_at = CASE WHEN t.sent THEN c.sent_at END,
        last_error = coalesce(cast(:error AS text), c.last_error),
        due_at = now() + make_interval(secs => :pause)
    FROM unnest(cast(:ids AS bigint[]), cast(:sent AS boolean[])) AS t (id, sent)
    WHERE c.id = t.id AND c.state = 'queued'
""")

ADD_PLACES = text("""
    INSERT INTO mailwright.places (epoch_id, imap_uid, mailbox_id, message_id, flags)
    SELECT :epoch_id, t.uid, :mailbox_id, t.message_id, string_to_array(t.flags, ' ')
    FROM unnest(cast(:uids AS bigint[]), cast(:message_ids AS bigint[]), cast(:flags AS text[]))
         AS t (uid, message_id, flags)
    ON CONFLICT (epoch_id, imap_uid) DO NOTHING
    RETURNING imap_uid
""")

REMOVE_PLACES = text("""
    DELETE FROM mailwright.places WHERE epoch_id = :epoch_id AND imap_uid = ANY(:uids)
""")

QUEUE = text("""
    INSERT INTO mailwright.commands
        (mailbox_id, kind, message_id, folder_id, target_id, add_flags, remove_flags, content, requested_by)
    VALUES (:mailbox_id, :kind, :message_id, :folder_id, :target_id, :add, :remove, :content, :by)
    RETURNING id, uid
""")

OPEN = text("""
    -- Commands about these messages that have not ended, in order; index: commands_message.
    SELECT c.message_id, c.uid, c.kind, c.folder_id, c.target_id, t.name AS target, c.add_flags,
           c.remove_flags, c.state, c.last_error, c.created_at
    FROM mailwright.commands AS c LEFT JOIN mailwright.folders AS t ON t.id = c.target_id
    WHERE c.message_id = ANY(:message_ids) AND c.state IN ('queued', 'told') ORDER BY c.id
""")

OF_MESSAGE = text("""
    SELECT c.uid AS command, c.kind, f.name AS folder, t.name AS target, c.add_flags, c.remove_flags, c.state,
           c.tries, c.last_error AS reason, c.requested_by, c.created_at, c.ended_at
    FROM mailwright.commands AS c
    LEFT JOIN mailwright.folders AS f ON f.id = c.folder_id
    LEFT JOIN mailwright.folders AS t ON t.id = c.target_id
    WHERE c.message_id = :message_id ORDER BY c.id
""")

ENDED = text("""
    -- How far commands are; ``told`` counts as an end for who waits.
    SELECT uid, state, last_error, tries FROM mailwright.commands WHERE uid = ANY(:uids)
""")

PLACES = text("""
    SELECT p.message_id, f.id AS folder_id, f.name AS folder, f.special_use, p.imap_uid AS uid, p.flags
    FROM mailwright.places AS p
    JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
    WHERE p.message_id = ANY(:message_ids) ORDER BY f.id, p.imap_uid
""")

MESSAGES = text("""
    SELECT m.id, m.uid, m.state, b.address FROM mailwright.messages AS m
    JOIN mailwright.mailboxes AS b ON b.id = m.mailbox_id WHERE m.uid = ANY(:uids)
""")

FOLDERS = text("""
    SELECT id, name, special_use, selectable FROM mailwright.folders
    WHERE mailbox_id = :mailbox_id AND gone_at IS NULL ORDER BY id
""")

CAUSED = text("""
    -- Commands that the server got, or may have got, and whose outcome nobody has seen yet; index:
    -- commands_message.
    SELECT message_id, kind, folder_id, target_id, add_flags, remove_flags FROM mailwright.commands
    WHERE message_id = ANY(:message_ids) AND sent_at IS NOT NULL AND state IN ('queued', 'told')
""")
