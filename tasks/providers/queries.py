"""The SQL of providers and domains."""

from sqlalchemy import text

ROWS = text("""
    SELECT p.uid, p.name, p.kind, p.disabled, p.paused, p.paused_until,
           p.receive, p.imap_host, p.imap_port, p.imap_security,
           p.send, p.smtp_host, p.smtp_port, p.smtp_security, p.login_mode, p.logo_type,
           coalesce((SELECT array_agg(d.domain ORDER BY d.domain) FROM mailwright.provider_domains AS d
                     WHERE d.provider_id = p.id), '{}') AS domains,
           (SELECT count(*) FROM mailwright.mailboxes AS m WHERE m.provider_id = p.id) AS mailboxes
    FROM mailwright.providers AS p
    ORDER BY lower(p.name)
""")

DOMAINS_OF = text("SELECT domain FROM mailwright.provider_domains WHERE provider_id = :id ORDER BY domain")

# Index: mailboxes_provider_id_idx.
COUNT_MAILBOXES = text("SELECT count(*) FROM mailwright.mailboxes WHERE provider_id = :id")

INSERT_DOMAIN = text("""
    INSERT INTO mailwright.provider_domains (domain, provider_id) VALUES (:domain, :id)
    ON CONFLICT (domain) DO NOTHING RETURNING uid
""")

# Index: provider_domains_domain_key.
OWNER_OF_DOMAIN = text("""
    SELECT p.id, p.name FROM mailwright.provider_domains AS d
    JOIN mailwright.providers AS p ON p.id = d.provider_id WHERE d.domain = :domain
""")

DELETE_DOMAIN = text("""
    DELETE FROM mailwright.provider_domains WHERE domain = :domain RETURNING uid, provider_id
""")

DELETE_DOMAINS_OF = text("DELETE FROM mailwright.provider_domains WHERE provider_id = :id")

DOMAINS = text("""
    SELECT d.uid, d.domain, p.name AS provider, d.created_at
    FROM mailwright.provider_domains AS d JOIN mailwright.providers AS p ON p.id = d.provider_id
    WHERE CAST(:provider AS text) IS NULL OR lower(p.name) = lower(:provider)
    ORDER BY d.domain
""")

# No password goes to a new place before someone confirms it.
AWAIT_CONFIRMATION = text("""
    UPDATE mailwright.mailboxes SET awaiting_confirmation = true, updated_at = now()
    WHERE provider_id = :id AND state <> 'removing' AND NOT awaiting_confirmation
    RETURNING uid, address
""")

SEALED_SECRETS = text("""
    SELECT id, uid, oauth_client_secret FROM mailwright.providers
    WHERE oauth_client_secret IS NOT NULL ORDER BY id FOR NO KEY UPDATE
""")

STORE_SECRET = text("UPDATE mailwright.providers SET oauth_client_secret = :packed WHERE id = :id")
