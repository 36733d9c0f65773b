-- Whether a user holds an operation: the first matching line of the ordered list decides, no match denies.
CREATE OR REPLACE FUNCTION mailwright.allowed(user_name text, wanted text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT p.allow
        FROM mailwright.operation_permissions AS p
        JOIN mailwright.users AS u ON lower(u.name) = lower(user_name)
        WHERE p.operation = wanted
          AND (p.user_id = u.id
               OR p.role_id IN (SELECT r.role_id FROM mailwright.user_roles AS r WHERE r.user_id = u.id))
        ORDER BY p.position
        LIMIT 1
    ), false)
$$;
