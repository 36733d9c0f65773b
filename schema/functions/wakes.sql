-- Whatever brings a message back to the queue, or lets it go sooner, leaves a wake: by a person's wish, settled
-- doubt, or SQL by hand. Outcomes and what a worker gives back need none; the lane's own release looks at them.
CREATE OR REPLACE FUNCTION mailwright.leave_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mailwright.outbox_wakes (mailbox_id, due_at) VALUES (NEW.mailbox_id, NEW.due_at);
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER outbox_wakes AFTER UPDATE OF state, due_at ON mailwright.outbox FOR EACH ROW
    WHEN (NEW.state IN ('queued', 'deferred')
          AND (OLD.state NOT IN ('queued', 'deferred', 'armed') OR NEW.due_at < OLD.due_at))
    EXECUTE FUNCTION mailwright.leave_wake();
