-- The doors into the queue of outgoing mail. A refusal's SQLSTATE is MW and the status that HTTP gives it: MW400
-- (the message), MW403 (the right), MW404 (the mailbox), MW409 (the key), MW413 (the size). Its text starts with
-- the error code that every door uses.

-- What is wrong with a message, as "code: sentence", or NULL; how urgent it is, from when and until when it goes,
-- and the digest by which its key knows it again.
CREATE OR REPLACE FUNCTION mailwright.check_message(
    message jsonb, idempotency_key text, most_recipients bigint,
    OUT fault text, OUT rank bigint, OUT starts timestamptz, OUT ends timestamptz, OUT digest bytea
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    whole text;
    outer_part jsonb;
    address text;
    recipients integer := 0;
    wanted numeric := 0;
BEGIN
    IF message IS NULL OR jsonb_typeof(message) <> 'object' THEN
        fault := 'message_invalid: the message must be a JSON object.';
        RETURN;
    END IF;
    whole := message::text;
    IF octet_length(whole) > 67108864 THEN
        fault := 'message_too_big: a message may take 64 MiB as JSON.';
        RETURN;
    END IF;
    IF idempotency_key IS NOT NULL THEN
        IF length(idempotency_key) NOT BETWEEN 1 AND 255 OR idempotency_key ~ '[\u0001-\u001f\u007f]' THEN
            fault := 'idempotency_key_invalid: an idempotency key has 1 to 255 printable characters.';
            RETURN;
        END IF;
        digest := sha256(convert_to(whole, 'UTF8'));
    END IF;

    outer_part := message - '{text,html,raw,attachments,template,variables}'::text[];
    -- In JSON text a line end is \r or \n behind an even number of backslashes.
    IF strpos(outer_part::text, '\') > 0 AND outer_part::text ~ '(^|[^\\])(\\\\)*\\[rn]' THEN
        fault := 'header_injection: an address, subject or header holds a line end.';
        RETURN;
    END IF;
    IF NOT message ? 'raw' OR message ?| '{to,cc,bcc}'::text[] THEN
        FOR address IN
            SELECT a FROM unnest('{to,cc,bcc}'::text[]) AS field,
                          mailwright.recipient_addresses(message -> field) AS a
            WHERE message ? field AND jsonb_typeof(message -> field) <> 'null'
        LOOP
            recipients := recipients + 1;
            IF address IS NULL OR address !~ '.@.' OR octet_length(address) > 998 THEN
                fault := format('address_invalid: "%s" is no address.', left(coalesce(address, ''), 100));
                RETURN;
            END IF;
        END LOOP;
        IF recipients = 0 THEN
            fault := 'no_recipients: name someone in to, cc or bcc.';
            RETURN;
        ELSIF recipients > most_recipients THEN
            fault := format('too_many_recipients: the provider takes at most %s a message.', most_recipients);
            RETURN;
        END IF;
    END IF;

    starts := now();
    IF outer_part ?| '{priority,not_before,expires_at}'::text[] THEN
        BEGIN
            wanted := coalesce((message ->> 'priority')::numeric, 0);
            starts := greatest(starts, (message ->> 'not_before')::timestamptz);
            ends := (message ->> 'expires_at')::timestamptz;
        EXCEPTION WHEN data_exception THEN
            fault := 'message_invalid: priority must be a number, not_before and expires_at ISO 8601 times.';
            RETURN;
        END;
        IF wanted NOT BETWEEN -100 AND 100 OR wanted <> trunc(wanted) THEN
            fault := 'message_invalid: priority is a whole number from -100 to 100.';
            RETURN;
        ELSIF NOT isfinite(starts) OR NOT isfinite(ends) OR ends <= starts THEN
            fault := 'message_invalid: expires_at must be later than now and not_before.';
            RETURN;
        END IF;
    END IF;
    rank := wanted;
    ends := coalesce(ends, starts + interval '5 days');
    IF ends > '9000-01-01' THEN -- clients cannot read times beyond the year 9999
        fault := 'message_invalid: not_before and expires_at lie before the year 9000.';
    END IF;
END
$$;

-- Store messages for a mailbox, each with its key (or NULL), in one go; a faulty one is told and not stored. No
-- rights are checked here; the doors do that. `duplicate`: the key was known, `accepted` is the first message.
CREATE OR REPLACE FUNCTION mailwright.accept_messages(
    box bigint, messages jsonb[], idempotency_keys text[], principal text
) RETURNS TABLE (ordinal integer, accepted uuid, duplicate boolean, fault text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    box_uid uuid;
    most_recipients bigint;
    uids uuid[];
    faults text[];
    digests bytea[];
    fresh boolean[];
BEGIN
    SELECT m.uid, p.max_recipients INTO box_uid, most_recipients
    FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id WHERE m.id = box;

    WITH asked AS MATERIALIZED (
        SELECT m.number, coalesce(w.whole, m.message) AS message, idempotency_keys[m.number] AS key,
               coalesce(c.fault, w.fault) AS fault, c.rank, c.starts, c.ends, c.digest, mailwright.uuid7() AS uid
        FROM unnest(messages) WITH ORDINALITY AS m (message, number)
        CROSS JOIN LATERAL
            mailwright.check_message(m.message, idempotency_keys[m.number], most_recipients) AS c
        CROSS JOIN LATERAL mailwright.compose_message(
            box, CASE WHEN c.fault IS NULL AND m.message ?| '{template,reply_to_message}' THEN m.message END
        ) AS w
    ), claimed AS (
        -- In the order of the keys, so that two batches with the same ones do not wait for each other.
        INSERT INTO mailwright.idempotency_keys (principal, mailbox_id, key, digest, outbound_uid)
        SELECT lower(accept_messages.principal), box, a.key, a.digest, a.uid
        FROM asked AS a WHERE a.fault IS NULL AND a.key IS NOT NULL
        ORDER BY a.key, a.number
        ON CONFLICT DO NOTHING
        RETURNING outbound_uid
    ), fresh AS MATERIALIZED (
        SELECT a.* FROM asked AS a
        WHERE a.fault IS NULL AND (a.key IS NULL OR a.uid IN (SELECT outbound_uid FROM claimed))
        ORDER BY a.number
    ), stored AS (
        INSERT INTO mailwright.outbox
            (uid, mailbox_id, priority, due_at, expires_at, principal, request, subject, correlation)
        SELECT f.uid, box, f.rank, f.starts, f.ends, accept_messages.principal, f.message,
               left(f.message ->> 'subject', 998), f.uid
        FROM fresh AS f
    ), woken AS (
        INSERT INTO mailwright.outbox_wakes (mailbox_id, due_at)
        SELECT box, min(f.starts) FROM fresh AS f HAVING count(*) > 0
    ), told AS (
        INSERT INTO mailwright.events_pending (type, mailbox_id, subject, data, correlation)
        SELECT 'outbound.queued', box, f.uid::text,
               jsonb_build_object('mailbox', box_uid, 'message', f.uid, 'due_at', to_jsonb(f.starts)),
               f.uid::text
        FROM fresh AS f
    )
    SELECT array_agg(a.uid ORDER BY a.number), array_agg(a.fault ORDER BY a.number),
           array_agg(a.digest ORDER BY a.number),
           array_agg(a.uid IN (SELECT f.uid FROM fresh AS f) ORDER BY a.number)
    INTO uids, faults, digests, fresh FROM asked AS a;

    RETURN QUERY
    SELECT n,
           CASE WHEN fresh[n] THEN uids[n] WHEN k.digest = digests[n] THEN k.outbound_uid END,
           NOT fresh[n] AND faults[n] IS NULL,
           CASE WHEN faults[n] IS NULL AND NOT fresh[n] AND k.digest IS DISTINCT FROM digests[n]
                THEN 'idempotency_key_reused: this key came with another message before.'
                ELSE faults[n] END
    FROM generate_subscripts(uids, 1) AS n
    LEFT JOIN mailwright.idempotency_keys AS k
        ON NOT fresh[n] AND faults[n] IS NULL
       AND k.principal = lower(accept_messages.principal) AND k.mailbox_id = box AND k.key = idempotency_keys[n]
    ORDER BY n;
END
$$;

-- Raise "code: sentence" with the SQLSTATE of that code.
CREATE OR REPLACE FUNCTION mailwright.refuse(fault text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', fault USING ERRCODE = CASE split_part(fault, ':', 1)
        WHEN 'permission_denied' THEN 'MW403'
        WHEN 'mailbox_unknown' THEN 'MW404'
        WHEN 'template_unknown' THEN 'MW404'
        WHEN 'original_unknown' THEN 'MW404'
        WHEN 'idempotency_key_reused' THEN 'MW409'
        WHEN 'message_too_big' THEN 'MW413'
        ELSE 'MW400' END;
END
$$;

-- The mailbox by that address, and who asks for it: the database user that logged in. The owner of the tables acts
-- as administrator, any other must be a user of ours by that name who may send as the mailbox.
CREATE OR REPLACE FUNCTION mailwright.sending_mailbox(mailbox text, OUT box bigint, OUT asker text)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_box record;
    domain text := lower(substring(mailbox FROM '@([^@]*)$'));
BEGIN
    asker := session_user;
    SELECT m.id, m.send AND p.send AS sends, m.owner_id INTO found_box
    FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
    WHERE m.address_key = regexp_replace(mailbox, '@[^@]*$', '') || '@' || domain AND m.state <> 'removing';
    IF NOT FOUND THEN
        SELECT m.id, m.send AND p.send AS sends, m.owner_id INTO found_box
        FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
        WHERE m.address = mailbox AND m.state <> 'removing';
    END IF;
    IF EXISTS (SELECT FROM pg_namespace AS n
               WHERE n.nspname = 'mailwright' AND pg_has_role(session_user, n.nspowner, 'MEMBER')) THEN
        asker := 'administrator';
    ELSIF NOT mailwright.allowed(asker, 'CanSendMessages')
          AND (found_box.id IS NULL OR NOT EXISTS (
              SELECT FROM mailwright.users AS u
              WHERE u.id = found_box.owner_id AND lower(u.name) = lower(asker))) THEN
        PERFORM mailwright.refuse(format('permission_denied: "%s" may not send as %s.', asker, left(mailbox, 320)));
    END IF;
    IF found_box.id IS NULL THEN
        PERFORM mailwright.refuse(format('mailbox_unknown: there is no mailbox %s.', left(mailbox, 320)));
    ELSIF NOT found_box.sends THEN
        PERFORM mailwright.refuse(format('sending_off: %s does not send.', mailbox));
    END IF;
    box := found_box.id;
END
$$;

-- The SQL door, inside the caller's own transaction.
CREATE OR REPLACE FUNCTION mailwright.enqueue(
    mailbox text, message jsonb, idempotency_key text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    door record;
    answer record;
BEGIN
    SELECT * INTO door FROM mailwright.sending_mailbox(mailbox);
    SELECT * INTO answer
    FROM mailwright.accept_messages(door.box, ARRAY[message], ARRAY[idempotency_key], door.asker);
    IF answer.fault IS NOT NULL THEN
        PERFORM mailwright.refuse(answer.fault);
    END IF;
    RETURN answer.accepted;
END
$$;

-- The same for many, all or none: the first fault is raised, with the number of its message, from 1.
CREATE OR REPLACE FUNCTION mailwright.enqueue_many(
    mailbox text, messages jsonb[], idempotency_keys text[] DEFAULT NULL
) RETURNS TABLE (number integer, id uuid, duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    door record;
    answer record;
BEGIN
    SELECT * INTO door FROM mailwright.sending_mailbox(mailbox);
    IF array_ndims(messages) > 1 OR array_lower(messages, 1) <> 1
       OR array_ndims(idempotency_keys) > 1 OR array_lower(idempotency_keys, 1) <> 1
       OR cardinality(idempotency_keys) <> cardinality(messages) THEN
        PERFORM mailwright.refuse('message_invalid: give one list of messages, and one key for each, or none.');
    END IF;
    FOR answer IN
        SELECT * FROM mailwright.accept_messages(door.box, messages, idempotency_keys, door.asker)
    LOOP
        IF answer.fault IS NOT NULL THEN
            PERFORM mailwright.refuse(regexp_replace(
                answer.fault, '^([a-z_]+): ', format('\1: message %s: ', answer.ordinal)
            ));
        END IF;
        number := answer.ordinal;
        id := answer.accepted;
        duplicate := answer.duplicate;
        RETURN NEXT;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION mailwright.check_message(jsonb, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION mailwright.accept_messages(bigint, jsonb[], text[], text) FROM PUBLIC;
REVOKE ALL ON FUNCTION mailwright.refuse(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION mailwright.sending_mailbox(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION mailwright.enqueue(text, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION mailwright.enqueue_many(text, jsonb[], text[]) FROM PUBLIC;
