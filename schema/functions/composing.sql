-- The message as it is kept, or what is wrong with it as "code: sentence": with a template's words in the place of its
-- name, so that later edits do not change what was accepted; with In-Reply-To and References (RFC 5322 §3.6.4) in the
-- place of the id of what it answers. Of very long threads the first id and the newest stay.
CREATE OR REPLACE FUNCTION mailwright.compose_message(box bigint, message jsonb, OUT whole jsonb, OUT fault text)
LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    words jsonb;
    original record;
    ids text[];
BEGIN
    whole := message - 'reply_to_message';
    IF jsonb_typeof(message -> 'template') = 'string' THEN
        SELECT jsonb_strip_nulls(
            jsonb_build_object('name', t.name, 'subject', t.subject, 'text', t.text, 'html', t.html)
        ) INTO words FROM mailwright.templates AS t WHERE t.name = message ->> 'template';
        IF NOT FOUND THEN
            fault := format('template_unknown: there is no template "%s".', left(message ->> 'template', 100));
            RETURN;
        END IF;
        whole := whole || jsonb_build_object('template', words);
    END IF;
    IF message ->> 'reply_to_message' IS NULL THEN
        RETURN;
    ELSIF message ->> 'in_reply_to' IS NOT NULL OR message ->> 'references' IS NOT NULL THEN
        fault := 'message_invalid: "reply_to_message" says what is answered; leave out in_reply_to and references.';
        RETURN;
    END IF;
    BEGIN
        SELECT m.message_id, m.in_reply_to, m.headers INTO original FROM mailwright.messages AS m
        WHERE m.uid = (message ->> 'reply_to_message')::uuid AND m.mailbox_id = box;
    EXCEPTION WHEN data_exception THEN
        fault := 'message_invalid: reply_to_message must be the id of a stored message of this mailbox.';
        RETURN;
    END;
    IF original IS NULL THEN
        fault := format('original_unknown: this mailbox has no message %s.', left(message ->> 'reply_to_message', 100));
        RETURN;
    END IF;
    IF original.message_id IS NULL OR original.message_id !~ '^<[!-;=?-~]+>$' THEN
        RETURN;
    END IF;
    SELECT array_agg(found.id[1] ORDER BY header.at, found.at) INTO ids
    FROM jsonb_array_elements(original.headers) WITH ORDINALITY AS header (pair, at),
         regexp_matches(header.pair ->> 1, '<[!-;=?-~]+>', 'g') WITH ORDINALITY AS found (id, at)
    WHERE lower(header.pair ->> 0) = 'references';
    IF ids IS NULL AND cardinality(original.in_reply_to) = 1 AND original.in_reply_to[1] ~ '^<[!-;=?-~]+>$' THEN
        ids := original.in_reply_to;
    END IF;
    IF cardinality(ids) > 99 THEN
        ids := ids[1] || ids[cardinality(ids) - 97 :];
    END IF;
    whole := whole || jsonb_build_object(
        'in_reply_to', original.message_id,
        'references', to_jsonb(array_append(array_remove(ids, original.message_id), original.message_id))
    );
END
$$;

REVOKE ALL ON FUNCTION mailwright.compose_message(bigint, jsonb) FROM PUBLIC;
