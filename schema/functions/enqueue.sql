-- The doors into the queue of outgoing mail. A refusal's SQLSTATE is MW400 (the message), MW403 (the right),
-- MW404 (the mailbox), MW409 (the key) and its text starts with the error code that every door uses.

-- The bare addresses of one recipient field: a string, {"address": …}, or a list of these.
CREATE OR REPLACE FUNCTION mailwright.recipient_addresses(field jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE jsonb_typeof(item) WHEN 'object' THEN item ->> 'address' ELSE item #>> '{}' END
    FROM jsonb_array_elements(CASE jsonb_typeof(field) WHEN 'array' THEN field ELSE jsonb_build_array(field) END)
        AS item
$$;

-- Store one message for a mailbox. No rights are checked here; the doors do that.
CREATE OR REPLACE FUNCTION mailwright.accept_message(
    box bigint, message jsonb, idempotency_key text, principal text,
    OUT accepted uuid, OUT duplicate boolean
) LANGUAGE plpgsql AS $$
DECLARE
    digest bytea;
    known record;
    outer_part jsonb;
    address text;
    recipients integer := 0;
    most integer;
    starts timestamptz := now();
    ends timestamptz;
    rank numeric := 0;
    box_uid uuid;
BEGIN
    IF message IS NULL OR jsonb_typeof(message) <> 'object' THEN
        RAISE EXCEPTION 'message_invalid: the message must be a JSON object.' USING ERRCODE = 'MW400';
    END IF;
    IF octet_length(message::text) > 67108864 THEN
        RAISE EXCEPTION 'message_too_big: a message may take 64 MiB as JSON.' USING ERRCODE = 'MW400';
    END IF;
    IF idempotency_key IS NOT NULL THEN
        IF length(idempotency_key) NOT BETWEEN 1 AND 255 THEN
            RAISE EXCEPTION 'idempotency_key_invalid: an idempotency key has 1 to 255 characters.'
                USING ERRCODE = 'MW400';
        END IF;
        digest := sha256(convert_to(message::text, 'UTF8'));
    END IF;

    outer_part := message - '{text,html,raw,attachments}'::text[];
    -- In JSON text a line end is \r or \n behind an even number of backslashes.
    IF outer_part::text ~ '(^|[^\\])(\\\\)*\\[rn]' THEN
        RAISE EXCEPTION 'header_injection: an address, subject or header holds a line end.'
            USING ERRCODE = 'MW400';
    END IF;
    IF NOT message ? 'raw' OR message ?| '{to,cc,bcc}'::text[] THEN
        SELECT p.max_recipients INTO most
        FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id WHERE m.id = box;
        FOR address IN
            SELECT a FROM unnest('{to,cc,bcc}'::text[]) AS field,
                          mailwright.recipient_addresses(message -> field) AS a
            WHERE message ? field AND jsonb_typeof(message -> field) <> 'null'
        LOOP
            recipients := recipients + 1;
            IF address IS NULL OR address !~ '.@.' OR octet_length(address) > 998 THEN
                RAISE EXCEPTION 'address_invalid: "%" is no address.', left(coalesce(address, ''), 100)
                    USING ERRCODE = 'MW400';
            END IF;
        END LOOP;
        IF recipients = 0 THEN
            RAISE EXCEPTION 'no_recipients: name someone in to, cc or bcc.' USING ERRCODE = 'MW400';
        ELSIF recipients > most THEN
            RAISE EXCEPTION 'too_many_recipients: the provider takes at most % a message.', most
                USING ERRCODE = 'MW400';
        END IF;
    END IF;

    IF outer_part ?| '{priority,not_before,expires_at}'::text[] THEN
        BEGIN
            rank := coalesce((message ->> 'priority')::numeric, 0);
            starts := greatest(starts, (message ->> 'not_before')::timestamptz);
            ends := (message ->> 'expires_at')::timestamptz;
        EXCEPTION WHEN data_exception THEN
            RAISE EXCEPTION 'message_invalid: priority must be a number, not_before and expires_at ISO 8601 times.'
                USING ERRCODE = 'MW400';
        END;
        IF rank NOT BETWEEN -100 AND 100 OR rank <> trunc(rank) THEN
            RAISE EXCEPTION 'message_invalid: priority is a whole number from -100 to 100.' USING ERRCODE = 'MW400';
        ELSIF NOT isfinite(starts) OR NOT isfinite(ends) OR ends <= starts THEN
            RAISE EXCEPTION 'message_invalid: expires_at must be later than now and not_before.'
                USING ERRCODE = 'MW400';
        END IF;
    END IF;
    ends := coalesce(ends, starts + interval '5 days');

    accepted := mailwright.uuid7();
    duplicate := false;
    IF idempotency_key IS NOT NULL THEN
        INSERT INTO mailwright.idempotency_keys (principal, mailbox_id, key, digest, outbound_uid)
        VALUES (principal, box, idempotency_key, digest, accepted)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT k.digest, k.outbound_uid INTO known FROM mailwright.idempotency_keys AS k
            WHERE k.principal = accept_message.principal AND k.mailbox_id = box AND k.key = idempotency_key;
            IF known.digest IS DISTINCT FROM digest THEN
                RAISE EXCEPTION 'idempotency_key_reused: this key came with another message before.'
                    USING ERRCODE = 'MW409';
            END IF;
            accepted := known.outbound_uid;
            duplicate := true;
            RETURN;
        END IF;
    END IF;

    INSERT INTO mailwright.outbox
        (uid, mailbox_id, priority, due_at, expires_at, principal, request, subject, correlation)
    VALUES (accepted, box, rank::bigint, starts, ends, principal, message,
            left(message ->> 'subject', 998), accepted);
    INSERT INTO mailwright.outbox_wakes (mailbox_id, due_at) VALUES (box, starts);
    SELECT m.uid INTO box_uid FROM mailwright.mailboxes AS m WHERE m.id = box;
    INSERT INTO mailwright.events_pending (type, mailbox_id, subject, data, correlation)
    VALUES ('outbound.queued', box, accepted::text,
            jsonb_build_object('mailbox', box_uid, 'message', accepted, 'due_at', to_jsonb(starts)),
            accepted::text);
END
$$;

-- The SQL door, inside the caller's own transaction. The database user asks: the owner of the tables acts
-- as administrator, any other must be a user of ours by that name who may send as the mailbox.
CREATE OR REPLACE FUNCTION mailwright.enqueue(
    mailbox text, message jsonb, idempotency_key text DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    box record;
    asker text := session_user;
    domain text := lower(substring(mailbox FROM '@([^@]*)$'));
BEGIN
    SELECT m.id, m.send AND p.send AS sends, m.owner_id INTO box
    FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
    WHERE m.address_key = regexp_replace(mailbox, '@[^@]*$', '') || '@' || domain AND m.state <> 'removing';
    IF NOT FOUND THEN
        SELECT m.id, m.send AND p.send AS sends, m.owner_id INTO box
        FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
        WHERE m.address = mailbox AND m.state <> 'removing';
    END IF;
    IF EXISTS (SELECT FROM pg_namespace AS n
               WHERE n.nspname = 'mailwright' AND pg_has_role(session_user, n.nspowner, 'MEMBER')) THEN
        asker := 'administrator';
    ELSIF NOT mailwright.allowed(asker, 'CanSendMessages')
          AND (box.id IS NULL OR NOT EXISTS (
              SELECT FROM mailwright.users AS u WHERE u.id = box.owner_id AND lower(u.name) = lower(asker))) THEN
        RAISE EXCEPTION 'permission_denied: "%" may not send as %.', asker, left(mailbox, 320)
            USING ERRCODE = 'MW403';
    END IF;
    IF box.id IS NULL THEN
        RAISE EXCEPTION 'mailbox_unknown: there is no mailbox %.', left(mailbox, 320) USING ERRCODE = 'MW404';
    ELSIF NOT box.sends THEN
        RAISE EXCEPTION 'sending_off: % does not send.', mailbox USING ERRCODE = 'MW400';
    END IF;
    RETURN (mailwright.accept_message(box.id, message, idempotency_key, asker)).accepted;
END
$$;

REVOKE ALL ON FUNCTION mailwright.accept_message(bigint, jsonb, text, text) FROM PUBLIC;
