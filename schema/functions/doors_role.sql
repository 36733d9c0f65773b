-- The role of the SQL door: who is in it may call its two functions and read no table. A role belongs to the whole
-- server, so it may be there already; who may not create one makes it by hand and runs the GRANTs below.
DO $$
BEGIN
    CREATE ROLE mailwright_enqueue NOLOGIN;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'the role mailwright_enqueue was not made: this database user may not create roles.';
END
$$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailwright_enqueue') THEN
        GRANT USAGE ON SCHEMA mailwright TO mailwright_enqueue;
        GRANT EXECUTE ON FUNCTION mailwright.enqueue(text, jsonb, text) TO mailwright_enqueue;
        GRANT EXECUTE ON FUNCTION mailwright.enqueue_many(text, jsonb[], text[]) TO mailwright_enqueue;
    END IF;
END
$$;
