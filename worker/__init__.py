"""What runs: the Celery app, beat, relay, the command line and the embedded stack."""
