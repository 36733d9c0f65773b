-- The command line's own user, and the role that holds every operation.
WITH role AS (
    INSERT INTO mailwright.roles (name) VALUES ('administrators') RETURNING id
), member AS (
    INSERT INTO mailwright.users (name) VALUES ('administrator') RETURNING id
), joined AS (
    INSERT INTO mailwright.user_roles (user_id, role_id) SELECT member.id, role.id FROM member, role
)
INSERT INTO mailwright.operation_permissions (position, operation, role_id, allow)
SELECT o.position, o.name, role.id, true
FROM role, (VALUES
    (1, 'CanManageAdministration'), (2, 'CanManageMailboxes'), (3, 'CanReadMessages'),
    (4, 'CanSendMessages'), (5, 'CanViewOperations')
) AS o (position, name);
