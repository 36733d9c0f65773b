"""The SQL of rights. Every change of rights holds one lock, so that two that are each harmless cannot
together take the last administrator away."""

from sqlalchemy import text

LOCK = text("SELECT pg_advisory_xact_lock(hashtext('mailwright.rights'))")

# A user and the first line that decides an operation; indexes: users_name_key (lower(name)),
# operation_permissions_position_key.
DECIDING_LINE = text("""
    SELECT u.id, u.name, line.position, line.allow, line.role
    FROM mailwright.users AS u
    LEFT JOIN LATERAL (
        SELECT p.position, p.allow, r.name AS role
        FROM mailwright.operation_permissions AS p
        LEFT JOIN mailwright.roles AS r ON r.id = p.role_id
        WHERE p.operation = :operation
          AND (p.user_id = u.id
               OR p.role_id IN (SELECT m.role_id FROM mailwright.user_roles AS m WHERE m.user_id = u.id))
        ORDER BY p.position
        LIMIT 1
    ) AS line ON true
    WHERE lower(u.name) = lower(:name)
""")

USER_ID = text("SELECT id FROM mailwright.users WHERE lower(name) = lower(:name)")

USER = text("SELECT id, name FROM mailwright.users WHERE lower(name) = lower(:name)")

# Index: api_keys_uid_key.
KEY = text("""
    SELECT k.uid, k.digest, k.scopes, u.name, coalesce(k.expires_at <= now(), false) AS expired,
           k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute' AS unnoted
    FROM mailwright.api_keys AS k JOIN mailwright.users AS u ON u.id = k.user_id
    WHERE k.uid = :uid
""")

NOTE_USE = text("""
    -- Nobody waits for another who notes the same.
    UPDATE mailwright.api_keys SET last_used_at = now()
    WHERE id = (SELECT id FROM mailwright.api_keys WHERE uid = :uid FOR NO KEY UPDATE SKIP LOCKED)
""")

KEYS = text("""
    SELECT k.uid, u.name AS user, k.scopes, k.note, k.created_at, k.expires_at, k.last_used_at
    FROM mailwright.api_keys AS k JOIN mailwright.users AS u ON u.id = k.user_id
    WHERE cast(:user_id AS bigint) IS NULL OR k.user_id = :user_id
    ORDER BY k.id
""")

REMOVE_KEY = text("DELETE FROM mailwright.api_keys WHERE uid = :uid")

HAS_HOLDER = text("""
    SELECT EXISTS (SELECT FROM mailwright.users AS u WHERE mailwright.allowed(u.name, :operation))
""")

LINES = text("""
    SELECT p.uid, p.position, p.operation, p.allow, u.name AS user_name, r.name AS role_name
    FROM mailwright.operation_permissions AS p
    LEFT JOIN mailwright.users AS u ON u.id = p.user_id
    LEFT JOIN mailwright.roles AS r ON r.id = p.role_id
    ORDER BY p.position
""")

COUNT_LINES = text("SELECT count(*) FROM mailwright.operation_permissions")

SHIFT_DOWN = text("""
    -- Make room at :position.
    UPDATE mailwright.operation_permissions SET position = position + 1 WHERE position >= :position
""")

INSERT_LINE = text("""
    INSERT INTO mailwright.operation_permissions (position, operation, user_id, role_id, allow)
    VALUES (:position, :operation, :user_id, :role_id, :allow)
    RETURNING uid
""")

DELETE_LINE = text("DELETE FROM mailwright.operation_permissions WHERE position = :position")

RENUMBER = text("""
    -- Close the gaps that removed lines left.
    UPDATE mailwright.operation_permissions AS p
    SET position = n.position
    FROM (SELECT id, row_number() OVER (ORDER BY position) AS position
          FROM mailwright.operation_permissions) AS n
    WHERE n.id = p.id AND n.position <> p.position
""")

MOVE_LINE = text("""
    -- Take the line at :position to :target; those between step aside.
    UPDATE mailwright.operation_permissions
    SET position = CASE
        WHEN position = :position THEN :target
        WHEN :position < :target THEN position - 1
        ELSE position + 1
    END
    WHERE position BETWEEN least(:position, :target) AND greatest(:position, :target)
""")

USERS = text("""
    SELECT u.uid, u.name, u.created_at,
           coalesce(array_agg(r.name ORDER BY lower(r.name)) FILTER (WHERE r.id IS NOT NULL), '{}') AS roles
    FROM mailwright.users AS u
    LEFT JOIN mailwright.user_roles AS m ON m.user_id = u.id
    LEFT JOIN mailwright.roles AS r ON r.id = m.role_id
    GROUP BY u.id
    ORDER BY lower(u.name)
""")

ROLES = text("""
    SELECT r.uid, r.name, r.created_at,
           coalesce(array_agg(u.name ORDER BY lower(u.name)) FILTER (WHERE u.id IS NOT NULL), '{}') AS users
    FROM mailwright.roles AS r
    LEFT JOIN mailwright.user_roles AS m ON m.role_id = r.id
    LEFT JOIN mailwright.users AS u ON u.id = m.user_id
    GROUP BY r.id
    ORDER BY lower(r.name)
""")

ROLES_OF = text("""
    SELECT r.name FROM mailwright.roles AS r
    JOIN mailwright.user_roles AS m ON m.role_id = r.id
    WHERE m.user_id = :user_id ORDER BY lower(r.name)
""")

MEMBERS_OF = text("""
    SELECT u.name FROM mailwright.users AS u
    JOIN mailwright.user_roles AS m ON m.user_id = u.id
    WHERE m.role_id = :role_id ORDER BY lower(u.name)
""")

MAILBOXES_OWNED = text("SELECT count(*) FROM mailwright.mailboxes WHERE owner_id = :user_id")

ADD_MEMBER = text("""
    INSERT INTO mailwright.user_roles (user_id, role_id) VALUES (:user_id, :role_id)
    ON CONFLICT DO NOTHING RETURNING user_id
""")

REMOVE_MEMBER = text("""
    DELETE FROM mailwright.user_roles WHERE user_id = :user_id AND role_id = :role_id RETURNING user_id
""")

# The actor is stored under the name the user has, however it was typed.
INSERT_AUDIT = text("""
    INSERT INTO mailwright.audit (actor, action, kind, object_uid, name, changes)
    VALUES (
        coalesce((SELECT u.name FROM mailwright.users AS u WHERE lower(u.name) = lower(:actor)), :actor),
        :action, :kind, :uid, :name, CAST(:changes AS jsonb)
    )
""")
