-- Generated from tasks/outbound/states.py by its `guard`; a test holds them equal.
CREATE OR REPLACE FUNCTION mailwright.refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal_move: % cannot go from % to %.', TG_ARGV[0], OLD.state, NEW.state
        USING ERRCODE = 'MW500';
END
$$;
CREATE OR REPLACE TRIGGER outbox_moves AFTER UPDATE OF state ON mailwright.outbox FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NOT CASE OLD.state
        WHEN 'queued' THEN NEW.state IN ('armed', 'cancelled', 'expired', 'failed', 'held', 'sent')
        WHEN 'armed' THEN NEW.state IN ('deferred', 'failed', 'queued', 'sent', 'uncertain')
        WHEN 'deferred' THEN NEW.state IN ('armed', 'cancelled', 'expired', 'failed', 'held', 'queued', 'sent')
        WHEN 'held' THEN NEW.state IN ('cancelled', 'expired', 'queued')
        WHEN 'uncertain' THEN NEW.state IN ('failed', 'queued', 'sent')
        WHEN 'failed' THEN NEW.state IN ('queued')
        WHEN 'expired' THEN NEW.state IN ('queued')
        WHEN 'cancelled' THEN NEW.state IN ('queued')
        ELSE false END)
    EXECUTE FUNCTION mailwright.refuse_move('an outgoing message');
CREATE OR REPLACE TRIGGER outbox_recipients_moves AFTER UPDATE OF state ON mailwright.outbox_recipients FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND NOT CASE OLD.state
        WHEN 'pending' THEN NEW.state IN ('deferred', 'failed', 'sent', 'uncertain')
        WHEN 'deferred' THEN NEW.state IN ('failed', 'pending', 'sent', 'uncertain')
        WHEN 'uncertain' THEN NEW.state IN ('bounced', 'failed', 'pending', 'sent')
        WHEN 'failed' THEN NEW.state IN ('pending')
        WHEN 'sent' THEN NEW.state IN ('bounced')
        ELSE false END)
    EXECUTE FUNCTION mailwright.refuse_move('a recipient');
