"""Protocols: IMAP, SMTP and MIME over ``net``. Nothing here knows a database or Celery."""
